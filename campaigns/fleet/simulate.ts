import { randomFrom } from '../kill-run.ts'
import { createDueQueue } from './due-queue.ts'
import { type Account, createLedger } from './ledger.ts'
import type { Rule, World } from './sidecar.ts'
import { createVaultModel, type VaultOptions } from './vault-model.ts'

export interface Plan {
  readonly sidecars: number
  readonly lifeMs: number
  /** All of them start, without a certificate, within this time. */
  readonly startWithinMs: number
  readonly vault: VaultOptions
  /** Every sidecar is told to get a new certificate, at a random moment of this time. */
  readonly told?: { readonly from: number; readonly withinMs: number } | undefined
  readonly lastsMs: number
  readonly seed: number
}

export interface Run {
  readonly rule: Rule
  /** Requests that arrived at Vault, or where it should be, in each second since the start. */
  readonly asked: Uint32Array
  readonly account: Account
}

/** A fleet under one rule, in virtual time. The same plan gives the same run. */
export async function simulate(rule: Rule, plan: Plan): Promise<Run> {
  const { sidecars, lifeMs, lastsMs, seed, told } = plan
  const random = randomFrom(seed)
  const asked = new Uint32Array(Math.ceil(lastsMs / 1000) + 1)
  const vault = createVaultModel(plan.vault)
  let now = 0
  const world: World = {
    clock: { now: () => now, elapsed: () => now },
    random,
    seed,
    lifeMs,
    ledger: createLedger(sidecars, plan.vault.outage?.to),
    vault: {
      receive: (at, patience) => {
        const second = Math.floor(at / 1000)
        asked[second] = (asked[second] ?? 0) + 1
        return vault.receive(at, patience)
      },
    },
  }
  const fleet = Array.from({ length: sidecars }, (_, index) => rule.create(index, world))
  const queue = createDueQueue()
  /** When each one wants to be woken; what else is in the queue for it is out of date. */
  const wakeAt = fleet.map(() => random() * plan.startWithinMs)
  for (const [index, at] of wakeAt.entries()) queue.push(at, index)
  if (told) for (const index of fleet.keys()) queue.push(told.from + random() * told.withinMs, index + sidecars)

  for (let due = queue.pop(); due && due.at <= lastsMs; due = queue.pop()) {
    const isTold = due.id >= sidecars
    const index = isTold ? due.id - sidecars : due.id
    const sidecar = fleet[index]
    if (!sidecar || (!isTold && wakeAt[index] !== due.at)) continue
    now = due.at
    const next = isTold ? sidecar.tell() : sidecar.wake()
    const at = typeof next === 'number' ? next : await next
    wakeAt[index] = at
    queue.push(at, index)
  }
  now = lastsMs
  return { rule, asked, account: world.ledger.close(now) }
}
