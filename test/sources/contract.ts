import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { assertUsable, type Bundle } from '../../src/core/bundle.ts'
import { KEY_ALGORITHMS, type KeyAlgorithm } from '../../src/core/key.ts'
import { differences, namesOf } from '../../src/core/names.ts'
import { sources } from '../../src/sources/index.ts'
import type { Source, SourceDeps } from '../../src/sources/source.ts'

/** What an implementation needs for the suite. */
export interface SourceUnderTest extends AsyncDisposable {
  /** Options besides names and ttl, `kind` included. */
  readonly options: object
  readonly vault?: SourceDeps['vault']
}

interface Suite {
  readonly skip?: string | false
  /** By default all; making RSA keys of more than 2048 bits takes seconds. */
  readonly algorithms?: readonly KeyAlgorithm[]
}

/** A source as the config would make it. */
export function createSource(
  options: object,
  { algorithm = 'ecdsa-p256', vault = noVault, kubernetes = noCluster, warn = () => {} }: Partial<Made> = {},
): Source {
  const deps = { vault, kubernetes, key: { algorithm }, clock: systemClock, env: process.env, warn }
  return sources.create(sources.schema.parse(options), deps)
}

interface Made {
  readonly algorithm: KeyAlgorithm
  readonly vault: SourceDeps['vault']
  readonly kubernetes: SourceDeps['kubernetes']
  readonly warn: SourceDeps['warn']
}

const noVault = () => {
  throw new Error('this source should not need Vault')
}
const noCluster = () => {
  throw new Error('this source should not need an API server')
}

/** Refuses the bundle as the check stage would. */
export const check = (bundle: Bundle, { names, algorithm }: Source) =>
  assertUsable(
    bundle,
    { minTtlMs: 0, chain: 'complete', ...(names ? { names } : {}), ...(algorithm ? { algorithm } : {}) },
    Date.now(),
  )

const forever = new AbortController().signal
const ALL_KINDS = [
  'b.example.com',
  '*.example.com',
  '10.0.0.1',
  '2001:db8::8',
  '::ffff:192.0.2.1',
  'spiffe://example.org/web',
]

/** What every source that issues owes; `kind` is also how its origin begins. */
export function sourceContract(
  kind: string,
  start: () => Promise<SourceUnderTest>,
  { skip = false, algorithms = KEY_ALGORITHMS }: Suite = {},
): void {
  describe(`source ${kind}`, { skip }, () => {
    let started: SourceUnderTest
    before(async () => {
      started = await start()
    })
    after(() => started[Symbol.asyncDispose]())
    const create = (options: object, algorithm: KeyAlgorithm = 'ecdsa-p256') =>
      createSource(
        { ...started.options, ...options },
        { algorithm, ...(started.vault ? { vault: started.vault } : {}) },
      )

    for (const algorithm of algorithms)
      test(`gives a usable bundle with a key of ${algorithm}`, async () => {
        const source = create({ commonName: 'a.example.com' }, algorithm)
        const bundle = await source.fetch(forever)
        assert.equal(source.algorithm, algorithm)
        check(bundle, source)
      })

    test('gives names of every kind, exactly those asked for', async () => {
      const source = create({ commonName: 'a.example.com', altNames: ALL_KINDS })
      const bundle = await source.fetch(forever)
      assert.ok(source.names)
      assert.deepEqual(differences(source.names, namesOf(bundle.leaf)), [])
      assert.deepEqual(namesOf(bundle.leaf).ip, ['10.0.0.1', '2001:db8::8', '192.0.2.1'])
    })

    test('leaves the common name out of the subjectAltName when told so', async () => {
      const source = create({ commonName: 'a.example.com', altNames: ['b.example.com'], excludeCnFromSans: true })
      const { leaf } = await source.fetch(forever)
      assert.deepEqual([namesOf(leaf).commonName, namesOf(leaf).dns], ['a.example.com', ['b.example.com']])
    })

    test('asks for an international name as A-labels', async () => {
      const source = create({ altNames: ['bücher.example.com'], commonName: 'a.example.com' })
      assert.deepEqual(namesOf((await source.fetch(forever)).leaf).dns, ['a.example.com', 'xn--bcher-kva.example.com'])
    })

    test('gives a complete chain: intermediates in order, and the root apart from them', async () => {
      const { leaf, intermediates, roots } = await create({ commonName: 'a.example.com' }).fetch(forever)
      assert.equal(intermediates.length, 1)
      assert.equal(roots.length, 1)
      const [intermediate, root] = [intermediates[0], roots[0]]
      assert.ok(intermediate && root && leaf.checkIssued(intermediate) && intermediate.checkIssued(root))
    })

    test('makes a new key and a new serial each time', async () => {
      const source = create({ commonName: 'a.example.com' })
      const [one, other] = await Promise.all([source.fetch(forever), source.fetch(forever)])
      assert.notEqual(one.serial, other.serial)
      assert.notDeepEqual(
        one.leaf.publicKey.export({ type: 'spki', format: 'der' }),
        other.leaf.publicKey.export({ type: 'spki', format: 'der' }),
      )
    })

    test('asks for the lifetime it was told', async () => {
      const source = create({ commonName: 'a.example.com', ttl: '90m' })
      const { notAfter, receivedAt } = await source.fetch(forever)
      assert.equal(source.ttlMs, 5_400_000)
      assert.ok(Math.abs(notAfter - receivedAt - 5_400_000) < 60_000)
    })

    test('is of one origin, that each bundle carries', async () => {
      const source = create({ commonName: 'a.example.com' })
      assert.ok(source.origin.startsWith(`${kind} `))
      assert.equal((await source.fetch(forever)).origin, source.origin)
      assert.equal(create({ commonName: 'c.example.com' }).origin, source.origin)
    })

    test('does nothing when aborted before', async () => {
      const reason = new Error('stop')
      await assert.rejects(create({ commonName: 'a.example.com' }).fetch(AbortSignal.abort(reason)), reason)
    })

    test('refuses a config without any name, or with one that no certificate can hold', () => {
      const invalid = [
        {},
        { altNames: [] },
        { commonName: '' },
        { altNames: ['a b'] },
        { commonName: 'a', ttl: '10ms' },
      ]
      for (const options of invalid)
        assert.equal(
          sources.schema.safeParse({ ...started.options, ...options }).success,
          false,
          JSON.stringify(options),
        )
    })
  })
}
