import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import * as z from 'zod'
import type { Pod } from '../../src/injector/pod.ts'
import { admit, CONTEXT, podWith, WEB } from './kit.ts'

const SIGNALLED = { ...WEB, 'certferry.io/reload.web': 'SIGHUP:nginx', 'certferry.io/verify.web': '127.0.0.1:8443' }

const sidecarOf = ({ spec }: Pod) =>
  Container.parse([...(spec.initContainers ?? []), ...spec.containers].find(({ name }) => name === 'certferry'))
const Container = z.looseObject({
  args: z.array(z.string()),
  image: z.string(),
  securityContext: z.record(z.string(), z.unknown()),
  resources: z.object({ requests: z.record(z.string(), z.string()), limits: z.record(z.string(), z.string()) }),
  volumeMounts: z.array(z.object({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().optional() })),
})
const configOf = ({ metadata }: Pod) => parse(metadata.annotations?.['certferry.io/rendered-config'] ?? '')
const mountsOf = (pod: Pod, name: string) =>
  [...pod.spec.containers, ...(pod.spec.initContainers ?? [])]
    .find((each) => each.name === name)
    ?.volumeMounts?.map((mount) => `${mount.name} ${mount.mountPath}`)
const namesOf = (list: readonly { name: string }[] | null | undefined) => list?.map(({ name }) => name)

describe('a pod with one annotation', () => {
  const { pod, response, verdict } = admit(podWith(WEB))

  test('gets a native sidecar, a volume in memory and read-only mounts', () => {
    assert.deepEqual([response.allowed, verdict.result], [true, 'injected'])
    assert.deepEqual(namesOf(pod.spec.initContainers), ['certferry'])
    assert.equal(pod.spec.initContainers?.[0]?.restartPolicy, 'Always')
    assert.deepEqual(pod.spec.volumes?.find(({ name }) => name === 'certferry-tls')?.emptyDir, {
      medium: 'Memory',
      sizeLimit: '4Mi',
    })
    assert.deepEqual(pod.spec.containers[0]?.volumeMounts?.at(-1), {
      name: 'certferry-tls',
      mountPath: '/tls',
      readOnly: true,
    })
  })

  test('has the config that its sidecar runs in an annotation', () => {
    assert.deepEqual(configOf(pod), {
      vault: {
        address: 'https://vault.vault.svc:8200',
        auth: { kind: 'kubernetes', role: 'web', tokenFile: '/etc/certferry/token' },
      },
      admin: { listen: '0.0.0.0:9443', socket: '/run/certferry/control.sock' },
      volumes: ['/tls'],
      certificates: [
        {
          name: 'web',
          source: {
            kind: 'vault-pki',
            mount: 'pki',
            role: 'web',
            method: 'issue',
            commonName: 'web.example.com',
            ttl: '72h',
          },
          outputs: [{ kind: 'pem', directory: '/tls/web' }],
        },
      ],
    })
  })

  test('passes the pod security standard restricted, as far as the sidecar goes', () => {
    assert.deepEqual(sidecarOf(pod).securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
      runAsNonRoot: true,
      runAsUser: 101,
      runAsGroup: 101,
    })
  })

  test('shows Vault a token of its service account that is good for Vault alone', () => {
    const config = pod.spec.volumes?.find(({ name }) => name === 'certferry-config')
    assert.deepEqual(Projected.parse(config).projected.sources.at(-1), {
      serviceAccountToken: { audience: 'vault', expirationSeconds: 3600, path: 'token' },
    })
  })

  test('is scraped at the port of the sidecar', () => {
    const { annotations } = pod.metadata
    assert.deepEqual([annotations?.['prometheus.io/port'], annotations?.['prometheus.io/path']], ['9443', '/metrics'])
  })
})
const Projected = z.object({ projected: z.object({ sources: z.array(z.unknown()) }) })

describe('the mistakes of a naive webhook', () => {
  test('labels are not touched, or a ReplicaSet would not know its pods and make ever more', () => {
    const { operations, pod } = admit(podWith(WEB))
    assert.deepEqual(
      operations.filter(({ path }) => path.startsWith('/metadata/labels')),
      [],
    )
    assert.deepEqual(pod.metadata.labels, { app: 'web', 'pod-template-hash': '67b946d5d4' })
    assert.ok(!operations.some(({ path }) => path === '/metadata/annotations'), 'annotations are added one by one')
  })

  test('a second call changes nothing', () => {
    const { pod } = admit(podWith(SIGNALLED))
    const again = admit(pod)
    assert.deepEqual([again.operations, again.verdict.result], [[], 'unchanged'])
  })

  test('a pod that has no name yet is known by the beginning of one, and its namespace by the request', () => {
    assert.equal(admit(podWith(WEB)).verdict.pod, 'web-67b946d5d4-')
    assert.equal(admit(podWith(WEB)).verdict.namespace, 'shop')
  })

  test('the volume and the mounts of the service account stay', () => {
    const { pod } = admit(podWith(WEB))
    assert.equal(pod.spec.volumes?.[0]?.name, 'kube-api-access-x2x8z')
    assert.deepEqual(mountsOf(pod, 'nginx'), [
      'kube-api-access-x2x8z /var/run/secrets/kubernetes.io/serviceaccount',
      'certferry-tls /tls',
    ])
  })

  test('a pod without an annotation is left alone, such as that of a helm hook', () => {
    const { operations, verdict } = admit(podWith({ 'helm.sh/hook': 'test' }))
    assert.deepEqual([operations, verdict.result], [[], 'skipped'])
  })
})

describe('another webhook', () => {
  test('may add a container afterwards: it gets the mount, and the sidecar stays as that webhook left it', () => {
    const { pod } = admit(podWith(WEB))
    pod.spec.containers.push({ name: 'istio-proxy' })
    const probed = pod.spec.initContainers?.[0]
    if (probed) probed.readinessProbe = { httpGet: { path: '/app-health/certferry/readyz', port: 15_020 } }
    const { operations } = admit(pod)
    assert.deepEqual(operations, [
      {
        op: 'add',
        path: '/spec/containers/1/volumeMounts',
        value: [{ name: 'certferry-tls', mountPath: '/tls', readOnly: true }],
      },
    ])
  })

  test('may have put its own init containers first: ours comes after, where the network is there', () => {
    const { pod } = admit(
      podWith(WEB, {
        spec: { initContainers: [{ name: 'istio-init' }, { name: 'istio-proxy', restartPolicy: 'Always' }] },
      }),
    )
    assert.deepEqual(namesOf(pod.spec.initContainers), ['istio-init', 'istio-proxy', 'certferry'])
  })
})

describe('who the sidecar runs as', () => {
  const identityOf = (annotations: Record<string, string>, container: object, spec: object = {}) => {
    const { pod, response } = admit(podWith({ ...WEB, ...annotations }, { container, spec }))
    const { runAsUser, runAsGroup, runAsNonRoot } = sidecarOf(pod).securityContext
    return {
      user: runAsUser,
      group: runAsGroup,
      nonRoot: runAsNonRoot,
      supplemental: pod.spec.securityContext?.supplementalGroups,
      mode: configOf(pod).certificates[0].outputs[0].mode,
      warnings: response.warnings?.length ?? 0,
    }
  }
  const shared = { user: 65_532, group: 65_532, nonRoot: true, supplemental: [65_532], mode: '0640', warnings: 0 }
  const alone = { nonRoot: true, supplemental: undefined, mode: undefined, warnings: 0 }

  for (const [claim, annotations, container, spec, expected] of [
    [
      'the user of the container',
      {},
      { securityContext: { runAsUser: 101 } },
      {},
      { ...alone, user: 101, group: undefined },
    ],
    [
      'the user of the pod',
      {},
      { securityContext: undefined },
      { securityContext: { runAsUser: 7, runAsGroup: 8 } },
      { ...alone, user: 7, group: 8 },
    ],
    ['a user of its own and a common group, where the image decides', {}, { securityContext: undefined }, {}, shared],
    ['not root, though the app is', {}, { securityContext: { runAsUser: 0 } }, {}, shared],
    [
      'root, where that is insisted on',
      { 'certferry.io/run-as-same-user': 'true' },
      { securityContext: { runAsUser: 0 } },
      {},
      { ...alone, user: 0, group: undefined, nonRoot: false },
    ],
    [
      'the user that is given',
      { 'certferry.io/run-as-user': '1000', 'certferry.io/run-as-group': '1001' },
      {},
      {},
      { ...shared, user: 1000, group: 1001, supplemental: [1001] },
    ],
    [
      'nobody in particular, where the platform decides',
      { 'certferry.io/set-security-context': 'false' },
      {},
      {},
      { ...alone, user: undefined, group: undefined },
    ],
    [
      'another user that may not signal, and says so',
      { 'certferry.io/reload.web': 'SIGHUP:nginx', 'certferry.io/verify.web': '127.0.0.1:8443' },
      { securityContext: undefined },
      {},
      { ...shared, warnings: 1 },
    ],
  ] as const) {
    test(claim, () => assert.deepEqual(identityOf(annotations, container, spec), expected))
  }

  test('keeps groups that the pod has', () => {
    const { pod } = admit(
      podWith(WEB, {
        container: { securityContext: undefined },
        spec: { securityContext: { supplementalGroups: [5], fsGroup: 6 } },
      }),
    )
    assert.deepEqual(pod.spec.securityContext, { supplementalGroups: [5, 65_532], fsGroup: 6 })
  })
})

describe('an annotation', () => {
  test('that sends a signal shares the process namespace, in every mode', () => {
    for (const mode of [{}, { 'certferry.io/native-sidecar': 'false' }, { 'certferry.io/init-first': 'true' }])
      assert.equal(admit(podWith({ ...SIGNALLED, ...mode })).pod.spec.shareProcessNamespace, true)
    assert.equal(admit(podWith(WEB)).pod.spec.shareProcessNamespace, undefined)
  })

  test('native-sidecar: false, and an older cluster, get an init container and an ordinary one', () => {
    for (const [annotations, context] of [
      [{ 'certferry.io/native-sidecar': 'false' }, CONTEXT],
      [{}, { ...CONTEXT, nativeSidecars: false }],
    ] as const) {
      const { pod } = admit(podWith({ ...WEB, ...annotations }), context)
      assert.deepEqual(
        [namesOf(pod.spec.initContainers), namesOf(pod.spec.containers)],
        [['certferry-init'], ['nginx', 'certferry']],
      )
      assert.equal(sidecarOf(pod).restartPolicy, undefined)
      assert.deepEqual(admit(pod, context).operations, [])
    }
  })

  test('init-only: true gets no sidecar at all', () => {
    const { pod } = admit(podWith({ ...WEB, 'certferry.io/init-only': 'true' }))
    assert.deepEqual([namesOf(pod.spec.initContainers), namesOf(pod.spec.containers)], [['certferry-init'], ['nginx']])
    assert.deepEqual(pod.spec.initContainers?.[0]?.args, [
      'once',
      '-c',
      '/etc/certferry/config.yaml',
      '--timeout',
      '120s',
    ])
    assert.equal(pod.metadata.annotations?.['prometheus.io/scrape'], undefined)
  })

  test('init-first: true lets the init containers of the pod read the certificates', () => {
    const { pod } = admit(
      podWith({ ...WEB, 'certferry.io/init-first': 'true' }, { spec: { initContainers: [{ name: 'migrate' }] } }),
    )
    assert.deepEqual(namesOf(pod.spec.initContainers), ['certferry', 'migrate'])
    assert.deepEqual(mountsOf(pod, 'migrate'), ['certferry-tls /tls'])
  })

  test('containers limits who gets the certificates', () => {
    const two = {
      spec: {
        containers: [
          { name: 'nginx', securityContext: { runAsUser: 101 } },
          { name: 'log', securityContext: { runAsUser: 5 } },
        ],
      },
    }
    const { pod } = admit(podWith({ ...WEB, 'certferry.io/containers': 'nginx' }, two))
    assert.deepEqual([mountsOf(pod, 'nginx'), mountsOf(pod, 'log')], [['certferry-tls /tls'], undefined])
    assert.equal(sidecarOf(pod).securityContext.runAsUser, 101)
  })

  test('of resources replaces the default, and none takes it away', () => {
    const { pod } = admit(
      podWith({
        ...WEB,
        'certferry.io/requests-cpu': '50m',
        'certferry.io/limits-memory': 'none',
        'certferry.io/limits-cpu': '1',
      }),
    )
    assert.deepEqual(sidecarOf(pod).resources, { requests: { cpu: '50m', memory: '96Mi' }, limits: { cpu: '1' } })
  })

  test('wins over the default of the cluster', () => {
    const { pod } = admit(
      podWith({ ...WEB, 'certferry.io/vault-role': 'shop', 'certferry.io/auth-path': 'auth/team/kubernetes' }),
    )
    assert.deepEqual(configOf(pod).vault.auth, {
      kind: 'kubernetes',
      mount: 'team/kubernetes',
      role: 'shop',
      tokenFile: '/etc/certferry/token',
    })
  })

  test('vault-ca of the cluster is put beside the config', () => {
    const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'
    const { pod } = admit(podWith(WEB), { ...CONTEXT, defaults: { ...CONTEXT.defaults, 'vault-ca': pem } })
    assert.equal(pod.metadata.annotations?.['certferry.io/rendered-vault-ca'], pem)
    assert.equal(configOf(pod).vault.caFile, '/etc/certferry/vault-ca.pem')
    assert.match(JSON.stringify(pod.spec.volumes), /vault-ca\.pem/)
  })

  test('auth-type takes another method, which knows no role', () => {
    const annotations = {
      'certferry.io/auth-type': 'approle',
      'certferry.io/auth-config': '{ roleIdFile: /etc/certferry-secret/role-id }',
    }
    const { auth } = configOf(admit(podWith({ ...WEB, ...annotations })).pod).vault
    assert.deepEqual(auth, { kind: 'approle', roleIdFile: '/etc/certferry-secret/role-id' })
  })

  test('directory says where outputs are that do not say it themselves', () => {
    const certificate =
      'source: { kind: vault-pki, role: web, commonName: web.example.com }\noutputs: [{ kind: combined }, { kind: pem, directory: /tls/b }]'
    const { pod } = admit(podWith({ 'certferry.io/certificate.web': certificate, 'certferry.io/directory.web': 'a' }))
    assert.deepEqual(configOf(pod).certificates[0].outputs, [
      { directory: '/tls/a', kind: 'combined' },
      { kind: 'pem', directory: '/tls/b' },
    ])
  })

  test('config takes a ConfigMap with the whole config', () => {
    const { pod } = admit(podWith({ 'certferry.io/config': 'web-certferry' }))
    assert.equal(pod.metadata.annotations?.['certferry.io/rendered-config'], undefined)
    assert.match(JSON.stringify(pod.spec.volumes), /"configMap":\{"name":"web-certferry"/)
  })

  test('rollout-restart and events get a token for the API server', () => {
    for (const annotations of [{ 'certferry.io/reload.web': 'rollout-restart' }, { 'certferry.io/events': 'true' }]) {
      const { pod } = admit(podWith({ ...WEB, ...annotations }))
      assert.match(JSON.stringify(pod.spec.volumes), /kubernetes\/token.*kube-root-ca\.crt/)
      assert.equal(configOf(pod).kubernetes.tokenFile, '/etc/certferry/kubernetes/token')
    }
    assert.doesNotMatch(JSON.stringify(admit(podWith(WEB)).pod.spec.volumes), /kube-root-ca/)
  })

  test('reload: helper shares a volume for the socket, which the app may write to', () => {
    const { pod } = admit(podWith({ ...WEB, 'certferry.io/reload.web': 'helper' }))
    const [{ reload }] = configOf(pod).certificates
    assert.deepEqual(reload, [
      { kind: 'http', url: 'http://localhost/reload', socket: '/run/certferry-reload/app.sock' },
    ])
    for (const name of ['nginx', 'certferry'])
      assert.ok(mountsOf(pod, name)?.includes('certferry-reload /run/certferry-reload'), name)
    assert.deepEqual(pod.spec.containers[0]?.volumeMounts?.at(-1), {
      name: 'certferry-reload',
      mountPath: '/run/certferry-reload',
    })
    assert.equal(pod.spec.shareProcessNamespace, undefined)
    assert.deepEqual(admit(pod).operations, [])
  })

  test('json-patch changes the sidecar', () => {
    const { pod } = admit(
      podWith({
        ...WEB,
        'certferry.io/json-patch': '[{"op":"add","path":"/env/-","value":{"name":"TZ","value":"UTC"}}]',
      }),
    )
    assert.deepEqual(
      z
        .array(z.looseObject({ name: z.string() }))
        .parse(sidecarOf(pod).env)
        .at(-1),
      { name: 'TZ', value: 'UTC' },
    )
  })
})
