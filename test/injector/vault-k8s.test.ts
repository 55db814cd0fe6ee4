import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import { EQUIVALENTS, fromVaultK8s } from '../../src/injector/vault-k8s.ts'
import { admit, CONTEXT, podWith } from './kit.ts'

const MODE = { ...CONTEXT, vaultAnnotations: true }
const TEMPLATE =
  '{{- with secret "pki/issue/web" "common_name=web.example.com" "ttl=24h" -}}\n{{ .Data.private_key }}\n{{ .Data.certificate }}\n{{ .Data.issuing_ca }}\n{{- end }}'
const ask = (annotations: Record<string, string> = {}) => ({
  ...prefixed({
    'agent-inject': 'true',
    'agent-inject-secret-web': 'pki/issue/web',
    'agent-inject-template-web': TEMPLATE,
  }),
  ...prefixed(annotations),
})
const prefixed = (annotations: Record<string, string>) =>
  Object.fromEntries(Object.entries(annotations).map(([name, value]) => [`vault.hashicorp.com/${name}`, value]))
const admitted = (annotations: Record<string, string>) => admit(podWith(annotations), MODE)
const configOf = ({ pod }: ReturnType<typeof admit>) =>
  parse(pod.metadata.annotations?.['certferry.io/rendered-config'] ?? '')
const refused = (annotations: Record<string, string>) =>
  admitted(ask(annotations)).response.status?.message ?? 'it was not refused'

/** https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations */
const THEIRS =
  `agent-inject agent-inject-status agent-inject-secret-<name> agent-inject-template-<name> agent-inject-template-file-<name>
agent-inject-default-template agent-template-left-delim-<name> agent-template-right-delim-<name> agent-inject-file-<name> agent-inject-perms-<name>
agent-inject-command-<name> error-on-missing-key-<name> secret-volume-path secret-volume-path-<name> preserve-secret-case agent-inject-containers
agent-copy-volume-mounts agent-inject-token agent-image agent-configmap agent-extra-secret agent-init-first agent-pre-populate agent-pre-populate-only
agent-requests-cpu agent-requests-mem agent-requests-ephemeral agent-limits-cpu agent-limits-mem agent-limits-ephemeral agent-run-as-user
agent-run-as-group agent-run-as-same-user agent-set-security-context agent-share-process-namespace agent-service-account-token-volume-name
agent-revoke-on-shutdown agent-revoke-grace agent-enable-quit agent-cache-enable agent-cache-use-auto-auth-token agent-cache-listener-port
agent-cache-exit-on-err agent-auto-auth-exit-on-err auth-min-backoff auth-max-backoff template-config-exit-on-retry-failure
template-static-secret-render-interval template-lease-renewal-threshold template-max-connections-per-host agent-disable-idle-connections
agent-disable-keep-alives agent-telemetry-<name> agent-json-patch agent-init-json-patch role auth-type auth-path auth-config-<name> service namespace
proxy-address tls-skip-verify tls-secret tls-server-name ca-cert ca-key client-cert client-key client-max-retries client-timeout go-max-procs log-level
log-format agent-request-namespace`.split(/\s+/)

describe('an annotation of vault-k8s', () => {
  test('has an equivalent or a reason, each of them', () => {
    assert.deepEqual(
      THEIRS.filter((name) => !Object.hasOwn(EQUIVALENTS, name)),
      [],
    )
    const empty = Object.entries(EQUIVALENTS).filter(
      ([, { becomes, note }]) => becomes === undefined && note === undefined,
    )
    assert.deepEqual(empty, [])
  })

  test('is handed on as the table says', () => {
    const plain = Object.entries(EQUIVALENTS).filter(
      ([name, { becomes }]) => becomes !== undefined && !name.includes('<'),
    )
    assert.ok(plain.length > 15)
    for (const [name, { becomes }] of plain) {
      const value = name === 'agent-inject' ? 'true' : 'some'
      const translated = fromVaultK8s(prefixed({ 'agent-inject': 'true', [name]: value }))
      assert.equal(translated?.annotations[`certferry.io/${becomes}`], value, name)
    }
  })

  test('means nothing unless the mode is on', () => {
    assert.equal(admit(podWith(ask()), CONTEXT).verdict.result, 'skipped')
  })

  test('asks for a certificate by the template that vault-k8s would render', () => {
    const { certificates, volumes } = configOf(admitted(ask()))
    assert.deepEqual(volumes, ['/vault/secrets'])
    assert.deepEqual(certificates, [
      {
        name: 'web',
        source: {
          kind: 'vault-pki',
          mount: 'pki',
          role: 'web',
          method: 'issue',
          commonName: 'web.example.com',
          ttl: '24h',
        },
        outputs: [{ kind: 'combined', directory: '/vault/secrets/web', file: 'web' }],
      },
    ])
  })

  test('says where, how and whom', () => {
    const result = admitted(
      ask({
        'agent-inject-file-web': 'web.pem',
        'agent-inject-perms-web': '0640',
        'agent-inject-command-web': "sh -c 'kill -HUP $(pidof nginx)'",
        'secret-volume-path': '/certs',
        role: 'shop',
        service: 'https://vault.example.com:8200',
        'auth-path': 'auth/team',
        'log-format': 'standard',
        'agent-init-first': 'true',
      }),
    )
    const { vault, certificates, log } = configOf(result)
    assert.deepEqual(
      [vault.address, vault.auth.role, vault.auth.mount, log.format],
      ['https://vault.example.com:8200', 'shop', 'team', 'pretty'],
    )
    assert.deepEqual(certificates[0].outputs, [
      { kind: 'combined', directory: '/certs/web', file: 'web.pem', mode: '0640' },
    ])
    assert.deepEqual(certificates[0].reload, [{ kind: 'signal', signal: 'SIGHUP', process: 'nginx' }])
    assert.equal(result.pod.spec.shareProcessNamespace, true)
    assert.equal(result.pod.spec.initContainers?.[0]?.name, 'certferry')
    assert.match(result.response.warnings?.join() ?? '', /agent-inject-secret-web is at \/certs\/web\/web\.pem/)
  })

  test('is asked about again without a change', () => {
    const { pod } = admitted(ask())
    assert.deepEqual(admit(pod, MODE).operations, [])
  })

  test('gives way to ours, and is ignored with a warning where it has no meaning here', () => {
    const result = admitted({
      ...ask({ role: 'theirs', 'agent-limits-mem': '1Gi', 'agent-frobnicate': 'x' }),
      'certferry.io/vault-role': 'ours',
    })
    assert.equal(configOf(result).vault.auth.role, 'ours')
    assert.match(
      result.response.warnings?.join() ?? '',
      /agent-limits-mem is ignored: for Vault Agent.*agent-frobnicate is ignored: it is not known/,
    )
  })

  for (const [annotations, expected] of [
    [
      { 'agent-inject-secret-db': 'database/creds/db' },
      /agent-inject-secret-db: "database\/creds\/db" is no path of PKI.*write certferry\.io\/certificate\.db/,
    ],
    [
      { 'agent-inject-template-web': '{{ with secret "secret/data/x" }}{{ .Data.data.a }}{{ end }}' },
      /"secret\/data\/x" is no path of PKI/,
    ],
    [
      {
        'agent-inject-template-web':
          '{{ with secret "pki/issue/web" "common_name=a.b" }}{{ .Data.certificate }}{{ end }}',
      },
      /agent-inject-template-web: prints something else/,
    ],
    [{ 'agent-inject-template-web': `${TEMPLATE}${TEMPLATE}` }, /asks for several secrets in one file/],
    [
      { 'agent-inject-command-web': 'systemctl reload nginx' },
      /agent-inject-command-web: "systemctl reload nginx" is no plain signal/,
    ],
    [{ 'tls-skip-verify': 'true' }, /tls-skip-verify: has no equivalent in certferry/],
    [{ 'agent-inject-token': 'true' }, /agent-inject-token: has no equivalent/],
  ] as const) {
    test(`is refused where it cannot be had: ${Object.entries(annotations).join().slice(0, 60)}`, () =>
      assert.match(refused(annotations), expected))
  }

  test('on a pod that vault-k8s has injected is left alone', () => {
    assert.equal(admitted(ask({ 'agent-inject-status': 'injected' })).verdict.result, 'skipped')
  })
})
