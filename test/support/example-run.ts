import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'

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
