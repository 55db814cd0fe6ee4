import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as z from 'zod'
import { loadConfig } from '../../src/config/config.ts'
import type { LeasingPath, TestLease } from './leasing.ts'
import { run } from './sidecar.ts'
import type { TestVault } from './vault.ts'

export interface LeasedDelivery extends AsyncDisposable {
  /** What is in the file now: all that the path gave. */
  delivered(): TestLease['data'] | undefined
}

/** certferry, which delivers what this path leases into a JSON file and looks at the lease every second. */
export function startLeasedDelivery(vault: TestVault, { path, body }: LeasingPath): LeasedDelivery {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-leased-'))
  const config = join(folder, 'certferry.json')
  const outputs = [{ kind: 'json', directory: join(folder, 'out'), file: 'lease.json', entries: { all: 'lease' } }]
  const lease = { kind: 'vault-read', path, poll: '1s', ...(body && { parameters: body }) }
  const auth = { kind: 'token', token: vault.rootToken }
  const secrets = [{ name: 'app', values: { lease }, outputs }]
  writeFileSync(config, JSON.stringify({ vault: { address: vault.address, auth }, secrets }), { mode: 0o600 })
  const running = run(loadConfig(config, {}))
  const file = join(folder, 'out', 'lease.json')
  return {
    delivered: () => (existsSync(file) ? Delivered.parse(JSON.parse(readFileSync(file, 'utf8'))).all : undefined),
    [Symbol.asyncDispose]: async () => {
      await running[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const Delivered = z.object({ all: z.record(z.string(), z.unknown()) })
