import type { Clock } from '../../src/clock.ts'
import { systemClock } from '../../src/clock.ts'
import { SidecarError } from '../../src/errors.ts'
import { createVault, type VaultDeps } from '../../src/vault/client.ts'
import { VaultOptions } from '../../src/vault/options.ts'
import { answer, type Fault, type FaultProxy, type SeenRequest } from '../support/fault-proxy.ts'

type Told = {
  [Name in keyof Omit<VaultDeps, 'clock' | 'env' | 'place' | 'writeToken'>]: Parameters<VaultDeps[Name]>[0][]
}

/** Dependencies that keep all they are told. */
export function recorder(clock: Clock = systemClock): { deps: VaultDeps; told: Told } {
  const told: Told = {
    onRequest: [],
    onWarning: [],
    onToken: [],
    onTokenFailed: [],
    onWrapReused: [],
    onClockSkew: [],
  }
  return {
    told,
    deps: {
      clock,
      onRequest: (event) => told.onRequest.push(event),
      onWarning: (event) => told.onWarning.push(event),
      onToken: (event) => told.onToken.push(event),
      onTokenFailed: (event) => told.onTokenFailed.push(event),
      onWrapReused: (event) => told.onWrapReused.push(event),
      onClockSkew: (skewMs) => told.onClockSkew.push(skewMs),
    },
  }
}

export const vaultOptions = (address: string | readonly string[], more: object = {}) =>
  VaultOptions.parse({ address, auth: { kind: 'token', token: 'hvs.canary-token' }, ...more })

/** A client for tests, with what it told. */
export function openVault(address: string | readonly string[], more: object = {}, clock: Clock = systemClock) {
  const { deps, told } = recorder(clock)
  return { vault: createVault(vaultOptions(address, more), deps), told }
}

/** Answers of a Vault whose token is good: what `lookup-self` says, and nothing else. */
export const lookupSelf = answer(200, { data: { ttl: 0, renewable: false, policies: ['root'], display_name: 'root' } })

/** A Vault that knows the token, and answers everything else like this. */
export const answering =
  (fault: Fault | ((request: SeenRequest) => Fault)): FaultProxy['onRequest'] =>
  (request) => {
    if (request.url === '/v1/auth/token/lookup-self') return lookupSelf
    return typeof fault === 'function' ? fault(request) : fault
  }

export const request = { mount: 'pki', role: 'web', body: { common_name: 'a.example.com' } }

/** The SidecarError a promise rejects with; fails when it resolves or rejects with something else. */
export async function failure(promise: Promise<unknown>): Promise<SidecarError> {
  const error = await promise.then(
    (value) => new Error(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (error instanceof SidecarError) return error
  throw error
}

export const forever = new AbortController().signal

/** The system clock, for tests in which nobody should wait. */
export const quickClock: Clock = { ...systemClock, sleep: async (_ms, signal) => signal?.throwIfAborted() }
