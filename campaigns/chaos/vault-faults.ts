import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { answer, type Fault } from '../../test/support/fault-proxy.ts'
import { until } from '../../test/support/until.ts'
import { signOnly, WEB_ROLE } from '../../test/support/vault.ts'
import { between, type ChaosFault, type Dice, NOTHING_TO_UNDO, oneOf } from './fault.ts'
import type { Subject } from './subject.ts'

const HALF = { body: '{"data":{"certificate":"-----BEGIN', length: 4_000 } as const
const GARBAGE = [
  '<html>Welcome to the network</html>',
  'null',
  '[]',
  '{"data":null}',
  '{"data":{"certificate":7}}',
] as const

/** What the way to Vault, or Vault itself, does to one sidecar. */
export const vaultFaults: readonly ChaosFault[] = [
  onTheWay('latency', (dice) => ({ kind: 'delay', ms: between(dice, 300, 6_000) })),
  onTheWay('connections reset', () => ({ kind: 'reset' })),
  onTheWay('half-open silence', () => ({ kind: 'silence' })),
  onTheWay('truncated answers', (dice) => ({ kind: 'part', ...HALF, end: oneOf(dice, ['silence', 'reset']) })),
  onTheWay('answers lost', () => ({ kind: 'lose' })),
  onTheWay('500, 502, 503, 504', (dice) => answer(oneOf(dice, [500, 502, 503, 504]), { errors: ['out of order'] })),
  onTheWay('429', (dice) => answer(429, { errors: ['slow down'] }, { 'retry-after': oneOf(dice, ['1', '5', '60']) })),
  onTheWay('412', () => answer(412, { errors: ['required index state not present'] })),
  onTheWay('garbage', (dice) => answer(200, oneOf(dice, GARBAGE))),
  onTheWay('answer without end', () => ({ kind: 'flood' })),
  {
    kind: 'token revoked',
    group: 'vault',
    seconds: [0, 0],
    begin: async ({ vault, token }) => {
      await vault.api('POST', 'auth/token/revoke', { token: token() })
      return NOTHING_TO_UNDO
    },
  },
  {
    kind: 'role deleted',
    group: 'vault',
    seconds: [2, 20],
    begin: async ({ vault, stage }) => {
      const path = `pki/roles/${stage.role}`
      await vault.api('DELETE', path)
      return () => insist(() => vault.api('POST', path, WEB_ROLE))
    },
  },
  {
    kind: 'policy denied',
    group: 'vault',
    seconds: [2, 20],
    begin: async (subject) => {
      const { vault, stage } = subject
      const path = `sys/policies/acl/${await policyOf(subject)}`
      await vault.api('POST', path, { policy: 'path "nothing" { capabilities = ["read"] }' })
      return () => insist(() => vault.api('POST', path, { policy: signOnly('pki', stage.role) }))
    },
  },
  {
    kind: 'rate-limit quota',
    group: 'vault',
    seconds: [5, 25],
    begin: async ({ vault, stage }) => {
      const path = `sys/quotas/rate-limit/${stage.role}`
      await vault.api('POST', path, { path: `pki/sign/${stage.role}`, rate: 1, interval: '60s' })
      return () => insist(() => vault.api('DELETE', path))
    },
  },
]

/** What happens to the Vault of all. */
export const wholeVaultFaults: readonly ChaosFault[] = [
  {
    kind: 'Vault sealed',
    group: 'vault',
    seconds: [3, 20],
    begin: async ({ vault }) => {
      await vault.seal()
      return () => insist(() => vault.unseal())
    },
  },
  {
    kind: 'Vault suspended',
    group: 'vault',
    seconds: [3, 20],
    begin: async ({ vault }) => {
      process.kill(vault.pid, 'SIGSTOP')
      return () => void process.kill(vault.pid, 'SIGCONT')
    },
  },
]

function onTheWay(kind: string, draw: (dice: Dice) => Fault): ChaosFault {
  return {
    kind,
    group: 'vault',
    seconds: [2, 25],
    begin: async ({ way }, dice) => {
      const fault = draw(dice)
      way.push(fault)
      return () => {
        way.splice(way.indexOf(fault), 1)
      }
    },
  }
}

/** The one that the login gives. */
async function policyOf({ vault, token }: Subject): Promise<string> {
  const { data } = await vault.api('POST', 'auth/token/lookup', { token: token() })
  const policy = z
    .array(z.string())
    .parse(data?.policies)
    .find((name) => name !== 'default')
  if (policy === undefined) throw new Error('the token has no policy of its own')
  return policy
}

/** Vault itself may be disturbed just now. */
async function insist(ask: () => Promise<unknown>): Promise<void> {
  await until(
    'Vault takes it',
    async () => {
      await Promise.race([ask(), sleep(5_000).then(() => Promise.reject(new Error('no answer')))])
      return true
    },
    { timeoutMs: 120_000, everyMs: 200 },
  )
}
