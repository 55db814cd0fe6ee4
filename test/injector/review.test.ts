import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { review } from '../../src/injector/review.ts'
import { admit, CONTEXT, denied, podWith, reviewOf, WEB } from './kit.ts'

const PREFIX = 'certferry.io/'
const webAnd = (annotations: Record<string, string>) => ({
  ...WEB,
  ...Object.fromEntries(Object.entries(annotations).map(([name, value]) => [PREFIX + name, value])),
})

describe('a bad annotation is refused with its name and what to write', () => {
  for (const [annotations, expected] of [
    [
      { 'vault-adress': 'x' },
      /certferry\.io\/vault-adress: is no annotation of certferry; did you mean "vault-address"\?/,
    ],
    [
      { 'relaod.web': 'SIGHUP:nginx' },
      /certferry\.io\/relaod\.web: is no annotation of certferry; did you mean "reload"\?/,
    ],
    [
      { frobnicate: '1' },
      /certferry\.io\/frobnicate: is no annotation of certferry; docs\/kubernetes\.md lists them all/,
    ],
    [{ 'init-only': 'yes' }, /certferry\.io\/init-only: must be 'true' or 'false' \(found "yes"\)/],
    [{ 'certificate.api': '{source: [}' }, /certferry\.io\/certificate\.api: is not valid YAML \(line 1, column \d+\)/],
    [{ 'certificate.api': 'hello' }, /certificate\.api: "hello" is neither a path such as pki\/issue\/web/],
    [
      { 'certificate.api': 'pki/issue/web?comon_name=a.b' },
      /certificate\.api: has the unknown parameter "comon_name"; did you mean "common_name"\?/,
    ],
    [
      { 'certificate.api': 'pki/issue/web?common_name=a.b&ttl=soon' },
      /certificate\.api: source\.ttl: "soon" is not a duration/,
    ],
    [{ 'certificate.api': 'pki/issue/web' }, /certificate\.api: source: needs commonName or altNames/],
    [{ 'certificate.Api': 'pki/issue/web?common_name=a.b' }, /certificate\.Api: "Api" is no name for a certificate/],
    [{ [`certificate.${'a'.repeat(64)}`]: 'x' }, /is no name for a certificate/],
    [
      { 'reload.api': 'SIGHUP:x' },
      /reload\.api: speaks of a certificate that is not there; add certferry\.io\/certificate\.api/,
    ],
    [{ 'reload.web': 'SIGKILL:nginx' }, /reload\.web: 0\.signal: must be one of SIGHUP/],
    [{ 'reload.web': 'please' }, /reload\.web: "please" is neither of SIGHUP:nginx/],
    [
      { 'verify.web': '{kind: tls, adress: "127.0.0.1:8443"}' },
      /verify\.web: 0\.adress: unknown key; did you mean "address"\?/,
    ],
    [{ 'directory.web': '/etc/nginx' }, /directory\.web: must be below volume-path, which is \/tls/],
    [{ 'directory.web': '../x' }, /directory\.web: must be a path of plain letters/],
    [{ 'volume-path': '/etc/certferry' }, /volume-path: is at \/etc\/certferry, which the sidecar uses itself/],
    [{ 'volume-path': '/run' }, /volume-path: is at \/run\/certferry/],
    [{ image: '' }, /certferry\.io\/image: must be the reference of an image/],
    [{ 'limits-memory': '1 GB' }, /certferry\.io\/limits-memory: must be a quantity such as/],
    [{ 'metrics-port': '70000' }, /certferry\.io\/metrics-port: must be at most 65535/],
    [{ 'auth-type': 'kuberntes' }, /certferry\.io\/auth-type: unknown kind; did you mean "kubernetes"\? Known here: /],
    [{ 'auth-config': '{rol: x}' }, /certferry\.io\/auth-config: vault\.auth\.rol: unknown key; did you mean "role"\?/],
    [{ containers: 'ngins' }, /certferry\.io\/containers: the pod has no container "ngins"; did you mean "nginx"\?/],
    [{ 'json-patch': '{' }, /certferry\.io\/json-patch: is not JSON/],
    [
      { 'json-patch': '[{"op":"remove","path":"/nowhere"}]' },
      /certferry\.io\/json-patch: operation 0 \(remove \/nowhere\) does not fit the container/,
    ],
    [
      { 'json-patch': '[{"op":"replace","path":"/name","value":"x"}]' },
      /json-patch: leaves no container that is named as before/,
    ],
    [
      { 'share-process-namespace': 'false', 'reload.web': 'SIGHUP:nginx' },
      /share-process-namespace: is 'false', but a reload sends a signal/,
    ],
    [{ 'json-patch': '[{"op":"add","path":"foo","value":1}]' }, /json-patch: must be a JSON pointer such as \/env\/-/],
    [{ 'json-patch': '[{"op":"move","path":"/x","from":"y"}]' }, /json-patch: must be a JSON pointer/],
    [{ 'json-patch': '[{"op":"add","path":"/__proto__/x","value":1}]' }, /json-patch: names nothing of a container/],
    [{ 'certificate.w\n{"level":"error"}\u202e': 'x' }, /certificate\.w \{"level":"error"\}\\x202e: /],
    [{ config: 'web' }, /certferry\.io\/config: cannot be given together with certferry\.io\/certificate\.web/],
    [{ 'service-account-token-volume': 'tokn' }, /service-account-token-volume: the pod has no volume "tokn"/],
  ] as const) {
    test(
      Object.entries(annotations)
        .map(([name, value]) => `${name.slice(0, 40)}: ${value}`)
        .join(', '),
      () => assert.match(denied(webAnd(annotations)), expected),
    )
  }

  test('all at once', () => {
    assert.match(denied(webAnd({ 'vault-adress': 'x', 'init-only': 'yes' })), /2 problems/)
  })

  test('and what is required and nowhere given is named', () => {
    assert.match(
      denied(WEB, {}, { ...CONTEXT, defaults: {} }),
      /vault-address: is required, here or as a default of the injector/,
    )
    assert.match(
      denied(WEB, {}, { ...CONTEXT, defaults: {} }),
      /vault-role: is required, here or as a default of the injector/,
    )
    assert.match(denied({ 'certferry.io/inject': 'true' }), /inject: asks for a sidecar without a certificate/)
  })
})

describe('a pod that cannot take it is refused whole', () => {
  for (const [claim, change, expected] of [
    ['in the network of its node', { spec: { hostNetwork: true } }, /hostNetwork/],
    ['for Windows', { spec: { os: { name: 'windows' } } }, /for Windows, where certferry does not run/],
    ['for Windows by its node selector', { spec: { nodeSelector: { 'kubernetes.io/os': 'windows' } } }, /for Windows/],
    [
      'with a volume at the same path',
      { container: { volumeMounts: [{ name: 'x', mountPath: '/tls/' }] } },
      /volume-path: container nginx has the volume x at \/tls/,
    ],
    [
      'with a volume of the same name',
      { spec: { volumes: [{ name: 'certferry-tls' }] } },
      /a volume of the pod is named certferry-tls/,
    ],
    [
      'with a container of the same name',
      { spec: { initContainers: [{ name: 'certferry' }] } },
      /a container of the pod is named certferry/,
    ],
    [
      'with a container at the same port',
      { container: { ports: [{ containerPort: 9443 }] } },
      /metrics-port: container nginx has port 9443/,
    ],
  ] as const) {
    test(claim, () => {
      const { response, operations } = admit(podWith(WEB, change))
      assert.equal(response.allowed, false)
      assert.deepEqual(operations, [])
      assert.match(response.status?.message ?? '', expected)
    })
  }

  test('which sees all processes of its node, where it is to signal one', () => {
    assert.match(denied(webAnd({ 'reload.web': 'SIGHUP:nginx' }), { spec: { hostPID: true } }), /hostPID/)
  })
})

describe('a review', () => {
  test('of a pod with ten times as many volumes takes not much more than ten times as long', () => {
    const many = (count: number) =>
      podWith(WEB, { spec: { volumes: Array.from({ length: count }, (_, index) => ({ name: `v${index}` })) } })
    const timed = (count: number) => {
      const asked = reviewOf(many(count))
      const begin = performance.now()
      for (let round = 0; round < 5; round += 1) review(asked, CONTEXT)
      return performance.now() - begin
    }
    timed(10)
    const [few, lots] = [timed(200), timed(2000)]
    assert.ok(lots < 40 * few, `${lots.toFixed(1)} ms against ${few.toFixed(1)} ms`)
  })

  test('of a dry run gets the same answer', () => {
    const [dry, real] = [{ dryRun: true }, {}].map((request) => admit(podWith(WEB), CONTEXT, request))
    assert.deepEqual(dry?.operations, real?.operations)
    assert.equal(dry?.verdict.dryRun, true)
  })

  test('from the namespace of the injector is allowed untouched', () => {
    const { response, operations } = admit(podWith(WEB), CONTEXT, { namespace: 'certferry' })
    assert.deepEqual([response.allowed, operations], [true, []])
  })

  test('of an update, of a deletion, or of another resource is allowed untouched', () => {
    for (const request of [
      { operation: 'UPDATE' },
      { operation: 'DELETE', object: null },
      { resource: { group: 'apps', version: 'v1', resource: 'deployments' } },
      { subResource: 'ephemeralcontainers' },
    ]) {
      const { answer, verdict } = review(reviewOf(podWith(WEB), request), CONTEXT)
      assert.equal(verdict.result, 'skipped')
      assert.doesNotMatch(JSON.stringify(answer), /"patch"/)
    }
  })

  test('of an older version, and what is no review, is told what it is', () => {
    for (const [body, expected] of [
      [
        { ...reviewOf(podWith(WEB)), apiVersion: 'admission.k8s.io/v1beta1' },
        /this is admission\.k8s\.io\/v1beta1 AdmissionReview, not .* admissionReviewVersions: \[v1\]/,
      ],
      [podWith(WEB), /this is v1 Pod, not an AdmissionReview/],
      [null, /this is something else/],
      [[], /this is something else/],
      [{ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' }, /not as documented: request/],
      [reviewOf(podWith(WEB), { uid: '' }), /not as documented: request\.uid/],
    ] as const) {
      assert.throws(() => review(body, CONTEXT), { code: 'BAD_REVIEW', message: expected })
    }
  })

  test('of a pod that is none is denied', () => {
    for (const object of [null, 5, {}, { metadata: {}, spec: {} }, { metadata: {}, spec: { containers: [] } }]) {
      const { verdict } = review(reviewOf(object), CONTEXT)
      assert.equal(verdict.result, 'denied')
    }
  })
})
