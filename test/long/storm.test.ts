import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { skipReason } from '../support/components.ts'
import { answer, startFaultProxy } from '../support/fault-proxy.ts'
import { bundleOnce, isWell } from '../support/fault-rig.ts'
import { createStage } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const PROCESSES = 8
const CERTIFICATES = 25
const ALL = PROCESSES * CERTIFICATES
/** How often half of them have failed before Vault is back: pauses are drawn below 32 s then, 16 s on average. */
const FAILURES = 6

test('V34 two hundred certificates of eight processes wait out an outage together, come back spread out, and are each issued once', {
  skip,
}, async (t) => {
  assert.ok(vault)
  await using stack = new AsyncDisposableStack()
  let isDown = true
  const arrivals: number[] = []
  const proxy = stack.use(
    await startFaultProxy(
      ({ url }) => {
        if (!url.includes('/sign/')) return undefined
        arrivals.push(performance.now())
        return isDown ? answer(503, { errors: ['down for the test'] }) : undefined
      },
      { target: vault.address },
    ),
  )
  const fleet = await Promise.all(
    Array.from({ length: PROCESSES }, async () => {
      const stage = stack.use(await createStage({ vault, program, address: proxy.address }))
      const names = Array.from({ length: CERTIFICATES }, (_, index) => `web-${index}`)
      await stage.configure(...names.map((name) => stage.web({ name, served: false })))
      return { stage, certferry: stack.use(stage.certferry()) }
    }),
  )
  const all = async () =>
    (await Promise.all(fleet.map(({ certferry }) => certferry.status()))).flatMap((one) => one.certificates)
  const failures = async () => (await all()).map((one) => one.failures).sort((a, b) => a - b)
  await until('half of them have failed so often', async () => ((await failures())[ALL / 2] ?? 0) >= FAILURES, {
    timeoutMs: 240_000,
    everyMs: 1_000,
  })
  const before = arrivals.length
  const backAt = performance.now()
  isDown = false
  await until('all are delivered', async () => (await all()).every(isWell), { timeoutMs: 240_000, everyMs: 1_000 })
  const seconds = arrivals.slice(before).map((at) => Math.floor((at - backAt) / 1000))
  const perSecond = Math.max(...seconds.map((second) => seconds.filter((one) => one === second).length))
  t.diagnostic(
    `${before} requests in vain, ${seconds.length} after it within ${Math.max(...seconds)} s, ${perSecond} in the busiest second`,
  )
  assert.equal(seconds.length, ALL, 'each asked once')
  const issued = await Promise.all(fleet.map(({ stage }) => stage.issued()))
  assert.deepEqual(issued, Array(PROCESSES).fill(CERTIFICATES))
  assert.ok(perSecond <= ALL / 5, `${perSecond} requests in one second`)
})
