import { after, describe, test } from 'node:test'
import { skipReason } from '../../support/components.ts'
import { answer, type Fault } from '../../support/fault-proxy.ts'
import { bundleOnce, createRig, type FaultPlan, survive } from '../../support/fault-rig.ts'
import { startVault } from '../../support/vault.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

/** A fault on the way to Vault, for requests of this path. */
const met = (reason: string, fault: Fault, path = '/v1/pki/sign/'): FaultPlan => ({
  reason,
  inject: ({ proxy }) => {
    proxy.onRequest = ({ url }) => (url.startsWith(path) ? fault : undefined)
  },
  repair: ({ proxy }) => {
    proxy.onRequest = () => undefined
  },
})

describe('what Vault, or something in between, answers', { skip, concurrency: 6 }, () => {
  const PLANS: Readonly<Record<string, FaultPlan>> = {
    'V6 500': met('vault_5xx', answer(500, { errors: ['internal error'] })),
    'V8 a connection reset in the middle of an answer': met('bad_response', {
      kind: 'part',
      body: '{"data":{"certificate":',
      length: 4_000,
      end: 'reset',
    }),
  }
  for (const [name, plan] of Object.entries(PLANS)) {
    test(`${name} is told, keeps the set in service, and does not outlive its cause`, async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program })
      await survive(rig, plan)
    })
  }
})
