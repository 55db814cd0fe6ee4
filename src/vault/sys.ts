import * as z from 'zod'

export interface VaultHealth {
  /** True where this node answers requests: active, or a standby that forwards them. */
  readonly usable: boolean
  readonly initialized: boolean
  readonly sealed: boolean
  readonly standby: boolean
  readonly version: string
}

export interface TokenInfo {
  readonly displayName: string
  readonly policies: readonly string[]
  /** 0 when it never expires. */
  readonly ttlMs: number
  readonly renewable: boolean
}

/** 429 is a standby and 473 a performance standby: both serve, or forward. https://developer.hashicorp.com/vault/api-docs/system/health */
export const USABLE: readonly number[] = [200, 429, 473]

export const Health = z.object({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean().default(false),
  version: z.string().default(''),
})

/** https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self */
export const Lookup = z
  .object({
    data: z.object({
      display_name: z.string().default(''),
      policies: z.array(z.string()).nullish(),
      ttl: z.int().min(0),
      expire_time: z.string().nullish(),
      renewable: z.boolean().default(false),
    }),
  })
  .transform(
    ({ data }): TokenInfo => ({
      displayName: data.display_name,
      policies: data.policies ?? [],
      // In its last second a token has 0 s to live, like one that never expires; but that one has no time of expiry.
      ttlMs: data.ttl * 1000 || (data.expire_time ? 1 : 0),
      renewable: data.renewable,
    }),
  )

export const Capabilities = z
  .object({ data: z.object({ capabilities: z.array(z.string()) }) })
  .transform(({ data }) => data.capabilities)
