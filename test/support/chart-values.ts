/** What `helm -f` is given. */
export type Values = Readonly<Record<string, unknown>>

/** Of the values that matter for one another, every one at least once away from its default. */
export const VALUE_SETS: Readonly<Record<string, Values>> = {
  defaults: {},
  'Vault for all pods': {
    vault: {
      address: 'https://vault.vault.svc:8200',
      role: 'web',
      namespace: 'team',
      serverName: 'vault',
      ca: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n',
    },
    sidecar: {
      image: { tag: '9.9.9' },
      nativeSidecars: false,
      vaultAnnotations: true,
      defaults: { 'metrics-port': 9444, scrape: false, 'log-level': 'debug' },
    },
  },
  'a certificate from Vault': {
    vault: {
      address: 'https://vault.vault.svc:8200',
      authPath: 'k8s/one',
      ca: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
    },
    certificate: {
      source: 'vault-pki',
      ttl: '12h',
      vaultPki: { mount: 'pki_int', role: 'injector', authRole: 'injector' },
    },
    networkPolicy: { egress: { enabled: true } },
  },
  'everything that has a switch': {
    replicaCount: 3,
    image: {
      repository: 'registry.example.com:5000/a/certferry',
      digest: `sha256:${'0'.repeat(64)}`,
      pullPolicy: 'Always',
    },
    imagePullSecrets: [{ name: 'registry' }],
    fullnameOverride: 'tls',
    webhook: {
      failurePolicy: 'Ignore',
      timeoutSeconds: 10,
      reinvocationPolicy: 'Never',
      excludedNamespaces: [],
      port: 10250,
      namespaceSelector: {
        matchLabels: { certificates: 'yes' },
        matchExpressions: [{ key: 'team', operator: 'Exists' }],
      },
      objectSelector: { matchLabels: { tls: 'yes' } },
      matchConditions: [{ name: 'not-for-the-kubelet', expression: "!('system:nodes' in request.userInfo.groups)" }],
      annotations: { a: 'b' },
    },
    service: { annotations: { a: 'b' } },
    serviceAccount: { name: 'own', annotations: { a: 'b' } },
    workloadRoles: {
      bindings: [
        { namespace: 'shop', serviceAccount: 'web', roles: ['events', 'rollout-restart', 'kubernetes-secret'] },
      ],
    },
    log: { level: 'debug', format: 'pretty' },
    extraEnv: [{ name: 'TZ', value: 'UTC' }],
    extraVolumes: [{ name: 'more', emptyDir: {} }],
    extraVolumeMounts: [{ name: 'more', mountPath: '/more' }],
    commonLabels: { team: 'a' },
    deploymentAnnotations: { a: 'b' },
    podAnnotations: { a: 'b' },
    podLabels: { a: 'b' },
    priorityClassName: 'system-cluster-critical',
    nodeSelector: { 'kubernetes.io/os': 'linux' },
    tolerations: [{ operator: 'Exists' }],
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }],
        },
      },
    },
    topologySpreadConstraints: [
      {
        maxSkew: 2,
        topologyKey: 'kubernetes.io/hostname',
        whenUnsatisfiable: 'DoNotSchedule',
        labelSelector: { matchLabels: { a: 'b' } },
      },
    ],
    podDisruptionBudget: { maxUnavailable: '50%' },
    networkPolicy: {
      webhookFrom: [{ ipBlock: { cidr: '10.0.0.0/8' } }],
      metricsFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
      egress: {
        enabled: true,
        apiServer: { ports: [16443], to: [{ ipBlock: { cidr: '10.0.0.1/32' } }] },
        extra: [{ ports: [{ port: 3128 }] }],
      },
    },
    metrics: {
      port: 9100,
      podMonitor: { enabled: true, labels: { release: 'prometheus' } },
      serviceMonitor: { enabled: true, interval: '1m' },
      sidecarPodMonitor: { enabled: true },
    },
  },
  // As docs/kubernetes.md says it.
  'users that the platform chooses': {
    podSecurityContext: { runAsUser: null, runAsGroup: null, fsGroup: null },
    securityContext: { runAsUser: null, runAsGroup: null },
    sidecar: { defaults: { 'set-security-context': 'false' } },
  },
  'everything that can be switched off': {
    serviceAccount: { create: false, name: 'given' },
    rbac: { create: false },
    podDisruptionBudget: { enabled: false },
    networkPolicy: { enabled: false },
    topologySpreadConstraints: [],
    hostNetwork: true,
    replicaCount: 1,
  },
}
