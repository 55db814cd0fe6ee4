import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Running, startProgram } from './program.ts'

export const examples = fileURLToPath(new URL('../../examples', import.meta.url))

/** Makes folders that are gone after the tests of the file. */
export async function temporaryFolders(): Promise<() => Promise<string>> {
  const root = await mkdtemp(join(tmpdir(), 'certferry-test-'))
  after(() => rm(root, { recursive: true, force: true }))
  return () => mkdtemp(join(root, 'e-'))
}

/** The run.sh of an example, which finds the programs by the variables of `programs` and puts its files into `folder`. */
export function runScript(
  name: string,
  folder: string,
  { args = ['--seconds', '1'], programs = {} }: { args?: readonly string[]; programs?: Record<string, string> } = {},
): Running {
  const env = { PATH: process.env.PATH ?? '', HOME: folder, TMPDIR: folder, ...programs }
  return startProgram([join(examples, name, 'run.sh'), ...args], env)
}

/** Its output, once it ended by itself and left neither process nor file. */
export async function outputOf(name: string, folder: string, programs: Record<string, string>): Promise<string> {
  const script = runScript(name, folder, { programs })
  assert.equal(await script.ended, 0, script.output())
  await assertNothingLeft(folder)
  return script.output()
}

/** Every process of an example has its folder in its environment. */
export async function processesWith(folder: string): Promise<string[]> {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = ids.map(async (id) => {
    const environment = await readFile(`/proc/${id}/environ`, 'utf8').catch(() => '')
    return environment.includes(folder) ? await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => id) : undefined
  })
  return (await Promise.all(found)).filter((line) => line !== undefined)
}

export async function assertNothingLeft(folder: string) {
  assert.deepEqual(await processesWith(folder), [])
  assert.deepEqual(await readdir(folder), [])
}

/** The certificate was there before the server, is served, was rotated, and the new one is proven to be served. */
export function assertRotated(output: string) {
  assert.match(output, /✓ web {2}obtained, .* target not there yet/)
  const [before, afterwards] = [...output.matchAll(/^web +ACTIVE +(\S+) .*$/gm)].map(([, serial]) => serial)
  assert.ok(before && afterwards && before !== afterwards, output)
  const [, serial = ''] = /^✓ web {2}rotated, serial ([0-9a-f]+)$/m.exec(output) ?? []
  assert.ok(serial.startsWith(afterwards.slice(0, 4)), output)
  assert.match(
    output,
    new RegExp(`"event":"rotation.finished","certificate":"web","serial":"${serial}".*"verified":true`),
  )
  assert.match(output, new RegExp(`^web +ACTIVE +${afterwards} .*✓$`, 'm'))
  assert.equal(output.match(/^OK - 1 certificate/gm)?.length, 2, output)
}
