import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { createProgram } from '../src/program.ts'
import { START_TLS } from '../src/verifiers/start-tls.ts'

const io = {
  stdout: new PassThrough(),
  stderr: new PassThrough(),
  env: {},
  self: [],
  signal: new AbortController().signal,
  onHangup: () => {},
  process,
  releaseSignals: () => process,
}

test('the help shows the default of every duration as a person would type it', () => {
  const options = createProgram(io, () => {}).commands.flatMap((command) =>
    command.options.map((option) => ({ command: command.name(), option })),
  )
  const durations = options.filter(({ option }) => option.flags.endsWith('<duration>'))
  assert.ok(durations.length >= 6)
  for (const { command, option } of durations)
    assert.match(`${option.defaultValueDescription}`, /^\d+[smhd]$/, `${command} ${option.flags}`)
})

test('check asks for TLS in every protocol that a verifier does', () => {
  const check = createProgram(io, () => {}).commands.find((command) => command.name() === 'check')
  const option = check?.options.find(({ long }) => long === '--start-tls')
  assert.deepEqual(option?.argChoices, [...START_TLS])
})
