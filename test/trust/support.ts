import type { Anchor, TrustSet } from '../../src/core/trust.ts'
import type { Origin } from '../../src/sources/source.ts'
import { anchors, lists } from '../../src/trust/index.ts'
import { createTrustSource } from '../../src/trust/trust-source.ts'

export interface Place {
  /** Options of the config, `kind` included. */
  readonly anchors: readonly object[]
  readonly crls?: readonly object[]
  readonly now?: () => number
  readonly mind?: (anchors: readonly Anchor[]) => void
  readonly warn?: (message: string) => void
}

/** A trust source as the config would make it, of places that need no Vault. */
export function createTrust({
  anchors: from,
  crls = [],
  now = Date.now,
  mind = () => {},
  warn = () => {},
}: Place): Origin<TrustSet> {
  const clock = { now, random: () => 0 }
  const vault = () => {
    throw new Error('this trust should not need Vault')
  }
  return createTrustSource({
    name: 'peers',
    anchors: from.map((options) => anchors.create(anchors.schema.parse(options), { vault, clock })),
    lists: crls.map((options) => lists.create(lists.schema.parse(options), { vault, clock })),
    pollMs: 300_000,
    keepMs: 60_000,
    isUsed: () => false,
    mind,
    warn,
    clock,
  })
}

export const pemOfLists = (...ders: readonly Buffer[]): string =>
  ders
    .map(
      (der) =>
        `-----BEGIN X509 CRL-----\n${der.toString('base64').replaceAll(/.{64}/g, '$&\n')}\n-----END X509 CRL-----\n`,
    )
    .join('')
