import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { createProgram } from '../src/program.ts'

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
