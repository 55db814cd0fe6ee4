import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { Resolver } from 'node:dns/promises'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keepNoOrphan, logOf } from './child.ts'
import { component } from './components.ts'
import { until } from './until.ts'
import { freePort } from './vault.ts'

/** A real BIND with one zone that takes updates signed by a key. */
export interface Bind extends AsyncDisposable {
  readonly server: string
  readonly zone: string
  readonly keyName: string
  readonly keyFile: string
  /** The TXT records of a name. */
  txt(name: string): Promise<string[]>
}

export async function startBind(): Promise<Bind> {
  const program = await component('named')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-bind-'))
  const port = await freePort()
  const secret = randomBytes(32).toString('base64')
  const zone = 'example.test'
  const at = (name: string) => join(folder, name)
  await chmod(folder, 0o755)
  await writeFile(at('key'), `${secret}\n`, { mode: 0o600 })
  await writeFile(
    at('zone'),
    `$TTL 60\n@ IN SOA ns.${zone}. ops.${zone}. 1 60 60 60 60\n@ IN NS ns.${zone}.\nns IN A 127.0.0.1\n* IN A 127.0.0.1\n`,
  )
  await writeFile(
    at('named.conf'),
    `key "acme" { algorithm hmac-sha256; secret "${secret}"; };
options { directory "${folder}"; pid-file none; session-keyfile none; listen-on port ${port} { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; allow-query { any; }; };
controls { };
zone "${zone}" { type primary; file "${at('zone')}"; update-policy { grant acme wildcard *.${zone} TXT; }; };
`,
  )
  const child = spawn(program, ['-g', '-c', at('named.conf')], { stdio: ['ignore', 'pipe', 'pipe'] })
  const log = logOf(child)
  const kill = keepNoOrphan(child)
  const resolver = new Resolver({ timeout: 1_000, tries: 2 })
  resolver.setServers([`127.0.0.1:${port}`])
  const dispose = async () => {
    await kill()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await until('BIND answers', () => {
      if (child.exitCode !== null) throw new Error(`it ended: ${log()}`)
      return resolver.resolveNs(zone)
    })
  } catch (error) {
    await dispose()
    throw error
  }
  const txt = (name: string) =>
    resolver.resolveTxt(name).then(
      (records) => records.map((parts) => parts.join('')),
      () => [],
    )
  return { server: `127.0.0.1:${port}`, zone, keyName: 'acme', keyFile: at('key'), txt, [Symbol.asyncDispose]: dispose }
}
