import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Consumer } from './consumer-rig.ts'

/** A file of `examples/` as it is. */
export const exampleText = (file: string): string =>
  readFileSync(fileURLToPath(new URL(`../../examples/${file}`, import.meta.url)), 'utf8')

/**
 * The config of an example, for the rig: it calls the port of the server HTTPS_PORT, and its certificates live longer than a test that shows
 * one as a client may take.
 */
export const exampleConfig = (name: string): Consumer['config'] => ({
  text: () =>
    exampleText(`${name}/certferry.yaml`)
      .replaceAll('${PORT}', '${HTTPS_PORT}')
      .replace(/ttl: \d+m/, 'ttl: 1h'),
})

/** A server that refuses to be run by root sees itself as nobody; outside, the user who runs the tests owns the files. */
export const asNobody = ['unshare', '--user', '--map-user=65534', '--map-group=65534', '--'] as const
