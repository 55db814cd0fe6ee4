import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { applyPatch } from 'rfc6902'
import { CERTIFICATE_ANNOTATIONS, PodAnnotations } from '../../src/injector/annotations.ts'
import { Pod } from '../../src/injector/pod.ts'
import { removeInjection } from '../../src/injector/remove.ts'
import { review } from '../../src/injector/review.ts'
import { EQUIVALENTS } from '../../src/injector/vault-k8s-table.ts'
import { Answer, CONTEXT, Operations, reviewOf, WEB } from './kit.ts'

const MODES = [CONTEXT, { ...CONTEXT, vaultAnnotations: true }, { ...CONTEXT, nativeSidecars: false }]

const value = fc.oneof(
  fc.constantFrom(
    'true',
    'false',
    '',
    '1',
    'nginx',
    '10m',
    '/tls',
    'pki/issue/web?common_name=a.example.com',
    'SIGHUP:nginx',
    '127.0.0.1:8443',
  ),
  fc.constantFrom(
    '{kind: signal, process: nginx}',
    '[{"op":"add","path":"/env/-","value":{"name":"A"}}]',
    '&a [*a, *a]',
    '{__proto__: {a: 1}}',
    '!!js/function x',
  ),
  fc.string({ unit: 'binary', maxLength: 40 }),
)
const name = fc.oneof(
  fc.constantFrom(...Object.keys(PodAnnotations.shape)),
  fc
    .constantFrom(...Object.keys(CERTIFICATE_ANNOTATIONS))
    .chain((family) => fc.constantFrom(`${family}.web`, `${family}.api`, `${family}.`)),
  fc.string({ maxLength: 12 }),
)
/** Those that fit, so that not every pod is refused. */
const fitting = fc.constantFrom(
  ['init-only', 'true'],
  ['init-first', 'true'],
  ['native-sidecar', 'false'],
  ['share-process-namespace', 'true'],
  ['reload.web', 'http://127.0.0.1:8080/reload'],
  ['reload.web', 'helper'],
  ['reload.web', 'rollout-restart'],
  ['verify.web', '127.0.0.1:8443'],
  ['directory.web', 'there'],
  ['run-as-user', '5'],
  ['set-security-context', 'false'],
  ['scrape', 'false'],
  ['events', 'true'],
  ['volume-path', '/certs'],
  ['metrics-port', '9444'],
  ['limits-memory', 'none'],
  ['extra-secret', 'more'],
  ['vault-ca', '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'],
  ['json-patch', '[{"op":"add","path":"/env/-","value":{"name":"A"}}]'],
  ['certificate.api', 'pki/sign/api?common_name=api.example.com&alt_names=b.example.com'],
)
const annotation = (pair: fc.Arbitrary<readonly string[]>) =>
  pair.map(([short, text]) => [`certferry.io/${short}`, text])
const ours = fc
  .array(
    fc.oneof(
      { weight: 12, arbitrary: annotation(fitting) },
      { weight: 1, arbitrary: annotation(fc.tuple(name, value)) },
    ),
    { maxLength: 4 },
  )
  .map((pairs) => Object.fromEntries(pairs))
const theirs = fc.dictionary(
  fc
    .constantFrom(...Object.keys(EQUIVALENTS))
    .map((family) => `vault.hashicorp.com/${family.replace('<name>', 'web')}`),
  value,
  { maxKeys: 4 },
)
const container = fc.record(
  {
    name: fc.oneof(
      { weight: 20, arbitrary: fc.constantFrom('nginx', 'app', 'istio-proxy') },
      { weight: 1, arbitrary: fc.constant('certferry') },
    ),
    image: fc.constant('nginx:1.29'),
    securityContext: fc.option(fc.record({ runAsUser: fc.constantFrom(0, 101, null) }), { nil: null }),
    volumeMounts: fc.option(
      fc.array(
        fc.oneof(
          { weight: 9, arbitrary: fc.constant({ name: 'data', mountPath: '/data' }) },
          { weight: 1, arbitrary: fc.constant({ name: 'x', mountPath: '/tls' }) },
        ),
      ),
      { nil: null },
    ),
    ports: fc.array(
      fc.constantFrom({ containerPort: 80 }, { containerPort: 81 }, { containerPort: 82 }, { containerPort: 9443 }),
      { maxLength: 1 },
    ),
  },
  { requiredKeys: ['name'] },
)
/** Names are different, and what certferry does not know is there too. */
const anyPod = fc.record({
  apiVersion: fc.constant('v1'),
  kind: fc.constant('Pod'),
  metadata: fc.record(
    {
      generateName: fc.constant('web-'),
      labels: fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 }),
      annotations: fc
        .tuple(
          fc.constantFrom({}, WEB, WEB, WEB),
          ours,
          fc.oneof({ weight: 3, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: theirs }),
        )
        .map((parts) => Object.assign({}, ...parts)),
    },
    { requiredKeys: ['annotations'] },
  ),
  spec: fc.record(
    {
      containers: fc.uniqueArray(container, { selector: (each) => each.name, minLength: 1, maxLength: 3 }),
      initContainers: fc.option(fc.uniqueArray(container, { selector: (each) => `init-${each.name}`, maxLength: 2 }), {
        nil: null,
      }),
      volumes: fc.option(
        fc.uniqueArray(fc.constantFrom({ name: 'data', emptyDir: {} }, { name: 'kube-api-access-x' }), {
          maxLength: 2,
        }),
        { nil: null },
      ),
      shareProcessNamespace: fc.boolean(),
      hostNetwork: fc.constantFrom(false, false, false, false, true),
      tolerations: fc.array(fc.record({ key: fc.string() }), { maxLength: 1 }),
    },
    { requiredKeys: ['containers'] },
  ),
})

/** As it comes over the wire. */
const pod = anyPod.map((made): unknown => JSON.parse(JSON.stringify(made)))

/** What the injector never touches, and what it must have left as it was. */
function outside(stored: unknown) {
  const { metadata, spec } = removeInjection(Pod.parse(stored))
  const { annotations, ...named } = metadata
  const {
    securityContext: _groups,
    shareProcessNamespace: _shared,
    containers,
    initContainers,
    volumes,
    ...rest
  } = spec
  const plain = (list: typeof initContainers) =>
    (list ?? []).map(({ volumeMounts, ...each }) => ({ ...each, volumeMounts: volumeMounts ?? [] }))
  return {
    named,
    annotations,
    rest,
    containers: plain(containers),
    initContainers: plain(initContainers),
    volumes: volumes ?? [],
  }
}

describe('whatever a pod and its annotations are', () => {
  const counts = { injected: 0, denied: 0 }

  test('a review answers, denies without a patch, changes nothing the second time and nothing else ever', () => {
    fc.assert(
      fc.property(pod, fc.constantFrom(...MODES), (asked, context) => {
        const { answer, verdict } = review(reviewOf(asked), context)
        const { response } = Answer.parse(answer)
        if (!response.allowed) {
          counts.denied += 1
          assert.equal(response.patch, undefined)
          return
        }
        if (response.patch === undefined) return
        counts.injected += 1
        assert.equal(verdict.result, 'injected')
        const stored: unknown = structuredClone(asked)
        const operations = Operations.parse(JSON.parse(Buffer.from(response.patch, 'base64').toString()))
        assert.deepEqual(
          applyPatch(stored, operations).filter((error) => error !== null),
          [],
        )
        const again = Answer.parse(review(reviewOf(stored), context).answer).response
        assert.deepEqual([again.allowed, again.patch], [true, undefined])
        assert.deepEqual(outside(stored), outside(asked))
      }),
      { numRuns: 3000 },
    )
  })

  test('and both were met', () => {
    assert.ok(counts.injected > 100 && counts.denied > 100, JSON.stringify(counts))
  })

  test('what is no review of a pod is told, never thrown as a defect', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.jsonValue(),
          fc.jsonValue().map((object) => reviewOf(object)),
        ),
        (body) => {
          try {
            review(body, CONTEXT)
          } catch (error) {
            assert.equal(Object(error).code, 'BAD_REVIEW')
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})
