import type { Authorization, Order } from 'acme-client'
import type { Names } from '../core/names.ts'
import { SidecarError } from '../errors.ts'
import { openResponder } from './challenge.ts'
import { type Acme, AcmeRefusal } from './client.ts'
import type { AcmeOptions } from './options.ts'
import type { Responder, ResponderDeps, Wanted } from './responder.ts'
import { parseProblem } from './transport.ts'

export interface OrderRequest {
  readonly names: Names
  /** PEM. */
  readonly csr: string
  /** Identifier (RFC 9773 §4.1) of the certificate that this one is to replace. */
  readonly replaces?: string | undefined
  readonly notAfter?: number | undefined
}

export interface OrderDeps extends ResponderDeps {
  /** What should not have been left behind. */
  readonly warn: (message: string) => void
}

type Terms = Pick<AcmeOptions, 'challenge' | 'profile' | 'preferredChain'>

/**
 * One order, from its identifiers to the chain in PEM (RFC 8555 §7.4):
 * 1. the order;
 * 2. for each name that is not authorized yet, the answer to its challenge is put in place, then the CA is told to look;
 * 3. all answers are taken away, whatever came of it;
 * 4. the CSR, and the certificate.
 * Throws ACME_ORDER_INVALID, ACME_CHALLENGE_FAILED, ACME_CHALLENGE_SETUP, ACME_HOOK_TIMEOUT and what `step` throws.
 */
export async function obtain(
  acme: Acme,
  request: OrderRequest,
  terms: Terms,
  deps: OrderDeps,
  signal: AbortSignal,
): Promise<string> {
  const order = await place(acme, request, terms)
  await authorize(acme, order, terms, deps, signal)
  const { client, step } = acme
  const ready = await settled(acme, order, ['ready'], deps, signal)
  const finalized = await step('the CSR', () => client.finalizeOrder(ready, request.csr))
  const valid = await settled(acme, finalized, ['valid'], deps, signal)
  return step('the certificate', () => client.getCertificate(valid, terms.preferredChain))
}

async function place(
  { client, step }: Acme,
  { names, replaces, notAfter }: OrderRequest,
  { profile }: Terms,
): Promise<Order> {
  const order = {
    identifiers: [
      ...names.dns.map((value) => ({ type: 'dns', value })),
      ...names.ip.map((value) => ({ type: 'ip', value })),
    ],
    ...(profile !== undefined && { profile }),
    ...(notAfter !== undefined && { notAfter: new Date(notAfter).toISOString() }),
  }
  const what = `the order for ${[...names.dns, ...names.ip].join(', ')}`
  const create = (extra: object) => step(what, () => client.createOrder({ ...order, ...extra }))
  if (replaces === undefined) return create({})
  return create({ replaces }).catch((error: unknown) => {
    // Replaced already, or unknown there: the certificate itself is worth more than the link to the old one.
    if (error instanceof AcmeRefusal && /^(?:alreadyReplaced|malformed|conflict)$/.test(error.type ?? ''))
      return create({})
    throw error
  })
}

async function authorize(
  acme: Acme,
  order: Order,
  { challenge: options }: Terms,
  deps: OrderDeps,
  signal: AbortSignal,
): Promise<void> {
  const { client, step } = acme
  const pending = (await step('the order', () => client.getAuthorizations(order))).filter(
    ({ status }) => status === 'pending',
  )
  if (pending.length === 0) return
  await using responder = await openResponder(options, deps, signal)
  const presented: Wanted[] = []
  try {
    for (const authorization of pending) {
      const challenge = challengeOf(authorization, options.kind)
      const proof = await client.getChallengeKeyAuthorization(challenge)
      const wanted = { name: authorization.identifier.value, token: challenge.token, proof }
      // Also what is presented only in part has to be taken away.
      presented.push(wanted)
      await responder.present(wanted, signal)
    }
    await responder.settle?.(signal)
    for (const authorization of pending)
      await step('the challenge', () => client.completeChallenge(challengeOf(authorization, options.kind)))
    await authorized(acme, order, deps, signal)
  } finally {
    await takeAway(responder, presented, deps)
  }
}

async function takeAway(responder: Responder, presented: readonly Wanted[], { warn }: OrderDeps): Promise<void> {
  for (const wanted of presented) {
    const left = await responder.cleanup(wanted)
    if (left !== undefined) warn(left)
  }
}

function challengeOf({ identifier, challenges }: Authorization, kind: AcmeOptions['challenge']['kind']) {
  const found = challenges.find(({ type }) => type === kind)
  if (found) return found
  const offered = challenges.map(({ type }) => type).join(', ') || 'none'
  throw new SidecarError('ACME_CHALLENGE_FAILED', `the CA offers no ${kind} for ${identifier.value}, but: ${offered}`)
}

/** The first look comes soon, the others at growing distances, ms. */
const FIRST_LOOK_MS = 250
const LONGEST_LOOK_MS = 5_000

async function* looks({ clock }: OrderDeps, signal: AbortSignal): AsyncGenerator<void> {
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 1.5, LONGEST_LOOK_MS)) {
    await clock.sleep(pause, signal)
    yield
  }
}

async function authorized({ client, step }: Acme, order: Order, deps: OrderDeps, signal: AbortSignal): Promise<void> {
  for await (const _ of looks(deps, signal)) {
    const all = await step('the order', () => client.getAuthorizations(order))
    const failed = all.find(({ status }) => status !== 'pending' && status !== 'valid')
    if (failed) throw challengeFailed(failed)
    if (all.every(({ status }) => status === 'valid')) return
  }
}

function challengeFailed({ identifier, status, challenges }: Authorization): SidecarError {
  const problem = challenges
    .map((challenge) => parseProblem('error' in challenge ? challenge.error : undefined))
    .find((one) => one)
  const why = problem ? `${problem.detail} (${problem.type})` : `its authorization is ${status}`
  return new SidecarError('ACME_CHALLENGE_FAILED', `the CA could not confirm ${identifier.value}: ${why}`)
}

async function settled(
  { client, step }: Acme,
  order: Order,
  wanted: readonly string[],
  deps: OrderDeps,
  signal: AbortSignal,
): Promise<Order> {
  let current = order
  const isThere = () => wanted.includes(current.status) || current.status === 'valid'
  if (isThere()) return current
  for await (const _ of looks(deps, signal)) {
    current = await step('the order', () => client.getOrder(current))
    if (current.status === 'invalid') throw orderInvalid(current)
    if (isThere()) break
  }
  return current
}

function orderInvalid(order: Order): SidecarError {
  const problem = parseProblem('error' in order ? order.error : undefined)
  const names = order.identifiers.map(({ value }) => value).join(', ')
  return new SidecarError(
    'ACME_ORDER_INVALID',
    `the order for ${names} became invalid: ${problem ? `${problem.detail} (${problem.type})` : 'the CA does not say why'}`,
  )
}
