import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadConfig } from '../../src/config/config.ts'
import { place, type Running, run } from './sidecar.ts'
import { until } from './until.ts'
import { signOnly, type TestVault, WEB_ROLE } from './vault.ts'

/** A certificate of some seconds from this Vault, whose fallback is a development CA. */
export async function startWithFallback(vault: TestVault) {
  await vault.setupPki({ roles: { web: { ...WEB_ROLE, max_ttl: '1h' } } })
  const { roleId, secretId } = await vault.setupApprole({ policy: signOnly('pki', 'web') })
  const { folder } = place()
  const [file, secretIdFile] = [join(folder, 'c.yaml'), join(folder, 'secret-id')]
  writeFileSync(secretIdFile, await secretId(), { mode: 0o600 })
  const names = { commonName: 'web.example.com', ttl: '6s' }
  const config = {
    vault: { address: vault.address, auth: { kind: 'approle', roleId, secretIdFile } },
    certificates: [
      {
        name: 'web',
        source: { kind: 'vault-pki', role: 'web', ...names },
        fallback: [{ kind: 'dev-ca', directory: join(folder, 'ca'), ...names }],
        check: { minTtl: '1s' },
        outputs: [{ kind: 'pem', directory: join(folder, 'web') }],
      },
    ],
  }
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
  return { file, start: () => run(loadConfig(file, {})) }
}

export const servesFrom = (running: Running, kind: string) =>
  until(
    `it is of ${kind}`,
    () => running.loop('web').report?.state.serving?.origin.startsWith(`${kind} `) && running.loop('web'),
  )

export const fallbacksOf = ({ events }: Running) =>
  events.flatMap(({ name, event }) => (name === 'source.fallback' ? [event] : []))

export const seal = async (vault: TestVault) => {
  await vault.api('POST', 'sys/seal')
}

export const failureOf = (running: Running) => running.loop('web').report?.state.failure ?? assert.fail('no failure')
