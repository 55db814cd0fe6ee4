import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parse, stringify } from 'yaml'
import { injectManifests } from '../../src/injector/manifests.ts'
import { fromVaultK8s } from '../../src/injector/vault-k8s.ts'
import { EQUIVALENTS } from '../../src/injector/vault-k8s-table.ts'
import { admit, CONTEXT, podWith, WEB } from './kit.ts'

const MODE = { ...CONTEXT, vaultAnnotations: true }
const TEMPLATE =
  '{{- with secret "pki/issue/web" "common_name=web.example.com" "ttl=24h" -}}\n{{ .Data.private_key }}\n{{ .Data.certificate }}\n{{ .Data.issuing_ca }}\n{{- end }}'
const PKI = '"pki/issue/web" "common_name=web.example.com"'
const PARTS = '{{ .Data.private_key }}{{ .Data.certificate }}'
const template = (call: string, body: string) => ({
  'agent-inject-template-web': `{{ with secret ${call} }}${body}{{ end }}`,
})
const SECRET = { 'agent-inject-secret-web': 'pki/issue/web', 'agent-inject-template-web': TEMPLATE }
type Some = Readonly<Record<string, string | undefined>>
const ask = (annotations: Some = {}) => prefixed({ 'agent-inject': 'true', ...SECRET, ...annotations })
const prefixed = (annotations: Some): Record<string, string> =>
  Object.fromEntries(
    Object.entries(annotations).flatMap(([name, value]) =>
      value === undefined ? [] : [[`vault.hashicorp.com/${name}`, value]],
    ),
  )
const translated = (annotations: Record<string, string>) =>
  fromVaultK8s(prefixed({ 'agent-inject': 'true', ...annotations })) ?? assert.fail('nothing was asked for')
const admitted = (annotations: Record<string, string>) => admit(podWith(annotations), MODE)
const configOf = ({ pod }: ReturnType<typeof admit>) =>
  parse(pod.metadata.annotations?.['certferry.io/rendered-config'] ?? '')
const refused = (annotations: Some) => admitted(ask(annotations)).response.status?.message ?? 'it was not refused'

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

  for (const [theirs, value, ours, expected = value] of [
    ['role', 'shop', 'vault-role'],
    ['service', 'https://vault.example.com:8200', 'vault-address'],
    ['namespace', 'team', 'vault-namespace'],
    ['auth-type', 'jwt', 'auth-type'],
    ['auth-path', 'auth/team', 'auth-path'],
    ['tls-server-name', 'vault.example.com', 'vault-server-name'],
    ['secret-volume-path', '/certs', 'volume-path'],
    ['agent-inject-containers', 'nginx', 'containers'],
    ['agent-extra-secret', 'more', 'extra-secret'],
    ['agent-init-first', 'true', 'init-first'],
    ['agent-pre-populate-only', '1', 'init-only', 'true'],
    ['agent-run-as-user', '100', 'run-as-user'],
    ['agent-run-as-group', '1000', 'run-as-group'],
    ['agent-run-as-same-user', 'T', 'run-as-same-user', 'true'],
    ['agent-set-security-context', 'False', 'set-security-context', 'false'],
    ['agent-share-process-namespace', 'true', 'share-process-namespace'],
    ['agent-service-account-token-volume-name', 'token', 'service-account-token-volume'],
    ['log-level', 'trace', 'log-level', 'debug'],
    ['log-level', 'warn', 'log-level'],
    ['log-format', 'standard', 'log-format', 'pretty'],
    ['log-format', 'json', 'log-format'],
  ] as const) {
    test(`${theirs}: ${value} is ours ${ours}: ${expected}`, () => {
      const { annotations, warnings } = translated({ [theirs]: value })
      assert.equal(annotations[`certferry.io/${ours}`], expected)
      assert.deepEqual(warnings, [])
    })
  }

  test('is in the tests above where the table says that it becomes another one', () => {
    const plain = Object.entries(EQUIVALENTS).filter(
      ([name, { becomes }]) => becomes !== undefined && !name.includes('<'),
    )
    assert.equal(plain.length, 20)
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
        outputs: [{ directory: '/vault/secrets/web', kind: 'combined', file: 'web' }],
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

  for (const [command, reload] of [
    ['pkill -HUP nginx', 'SIGHUP:nginx'],
    ['pkill -1 -x nginx', 'SIGHUP:nginx'],
    ['killall -s USR1 nginx', 'SIGUSR1:nginx'],
    ['kill -HUP $(pidof nginx)', 'SIGHUP:nginx'],
    ["/bin/sh -c 'kill -s SIGHUP $(pgrep -o nginx)'", 'SIGHUP:nginx'],
  ] as const) {
    test(`agent-inject-command-web: ${command} is reload.web: ${reload}`, () => {
      const { annotations } = translated({ ...SECRET, 'agent-inject-command-web': command })
      assert.equal(annotations['certferry.io/reload.web'], reload)
    })
  }

  for (const [claim, body] of [
    ['certificate and key', '{{ .Data.certificate }}{{ .Data.private_key }}'],
    [
      'the chain by a range',
      '{{ .Data.private_key }}\n{{ .Data.certificate }}\n{{- range .Data.ca_chain }}\n{{ . }}\n{{- end }}',
    ],
    ['what pkiCert gives', '{{ .Key }}{{ .Cert }}{{ .CA }}'],
  ] as const) {
    test(`a template may print ${claim}`, () => {
      const call = claim.includes('pkiCert') ? 'pkiCert' : 'secret'
      const template = `{{ with ${call} "pki/sign/web" "common_name=a.example.com" }}${body}{{ end }}`
      const { troubles } = translated({
        ...SECRET,
        'agent-inject-secret-web': 'pki/sign/web',
        'agent-inject-template-web': template,
      })
      assert.deepEqual(troubles, [])
    })
  }

  for (const [claim, annotations, expected] of [
    [
      'a secret that is none of PKI',
      { 'agent-inject-secret-db': 'database/creds/db' },
      /agent-inject-secret-db: "database\/creds\/db" is no path of PKI.*write certferry\.io\/certificate\.db instead/,
    ],
    [
      'another secret in the template',
      template('"secret/data/x"', '{{ .Data.private_key }}{{ .Data.certificate }}'),
      /agent-inject-template-web: reads "secret\/data\/x", which is another secret/,
    ],
    [
      'a certificate without its key',
      template(PKI, '{{ .Data.certificate }}'),
      /agent-inject-template-web: does not print both key and certificate/,
    ],
    [
      'two secrets in one file',
      { 'agent-inject-template-web': `${TEMPLATE}${TEMPLATE}` },
      /does more than print parts of a certificate/,
    ],
    [
      'a secret in between',
      template(PKI, `${PARTS}{{ (secret "secret/data/x").Data.data.password }}`),
      /does more than print parts of a certificate: \{\{ \(secret/,
    ],
    [
      'a secret behind',
      { 'agent-inject-template-web': `${TEMPLATE}{{ with secret "secret/data/x" | toJSON }}{{ . }}{{ end }}` },
      /does more than print/,
    ],
    ['a call with a pipe', template(`${PKI} | toJSON`, PARTS), /is not one \{\{ with secret/],
    [
      'other files',
      template(PKI, `${PARTS}{{ .Key | writeToFile "/vault/secrets/key" "vault" "vault" "0400" }}`),
      /does more than print/,
    ],
    [
      'JSON',
      template(PKI, '{"key": "{{ .Data.private_key }}", "cert": "{{ .Data.certificate }}"}'),
      /does more than print/,
    ],
    [
      'a parameter without a value',
      template('"pki/issue/web" "common_name"', PARTS),
      /has the parameter "common_name", which is no name=value/,
    ],
    [
      'no template',
      { 'agent-inject-template-web': undefined },
      /agent-inject-secret-web: has no template that says for which name/,
    ],
    [
      'no name',
      template('"pki/issue/web" "ttl=1h"', PARTS),
      /agent-inject-secret-web: source: needs commonName or altNames \(as certferry\.io\/certificate\.web\)/,
    ],
    [
      'a bad mode',
      { 'agent-inject-perms-web': '0777' },
      /agent-inject-secret-web: outputs\.0\.mode: must give nothing to others/,
    ],
    [
      'a file without its secret',
      { 'agent-inject-file-db': 'x' },
      /agent-inject-file-db: has no vault\.hashicorp\.com\/agent-inject-secret-db beside it/,
    ],
    [
      'names that differ in case',
      { 'agent-inject-secret-Web': 'pki/issue/web' },
      /agent-inject-secret-Web: means the same certificate as vault\.hashicorp\.com\/agent-inject-secret-web/,
    ],
    [
      'a command that is no signal',
      { 'agent-inject-command-web': 'systemctl reload nginx' },
      /agent-inject-command-web: "systemctl reload nginx" is no plain signal/,
    ],
    ['a signal that is none', { 'agent-inject-command-web': 'pkill -99 nginx' }, /is no plain signal/],
    [
      'a Vault that is not authenticated',
      { 'tls-skip-verify': 'true' },
      /tls-skip-verify: has no equivalent in certferry/,
    ],
    ['the token', { 'agent-inject-token': '1' }, /agent-inject-token: has no equivalent/],
    [
      'a log level that is none',
      { 'log-level': 'loud' },
      /vault\.hashicorp\.com\/log-level: must be debug, info, warn or error.*\(as certferry\.io\/log-level\)/,
    ],
  ] as const) {
    test(`${claim} is refused by name`, () => assert.match(refused(annotations), expected))
  }

  test('that says no asks for nothing', () => {
    for (const name of ['tls-skip-verify', 'agent-inject-token', 'agent-cache-enable'])
      assert.equal(admitted(ask({ [name]: 'false' })).verdict.result, 'injected')
  })

  test('is lifted by what its refusal says to write', () => {
    for (const [theirs, ours] of [
      [{ 'agent-inject-secret-web': 'secret/data/x' }, WEB],
      [
        { 'agent-inject-command-web': 'systemctl reload nginx' },
        { 'certferry.io/reload.web': 'http://127.0.0.1:8080/reload' },
      ],
      [{ 'secret-volume-path-web': '/elsewhere' }, { 'certferry.io/directory.web': 'there' }],
      [{ 'auth-config-role-id': 'x', 'auth-type': 'approle' }, { 'certferry.io/auth-config': '{ roleId: x }' }],
      [
        { 'tls-skip-verify': 'true' },
        { 'certferry.io/vault-ca': '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----' },
      ],
    ] as const) {
      assert.equal(admitted(ask(theirs)).verdict.result, 'denied', JSON.stringify(theirs))
      const { verdict } = admitted({ ...ask(theirs), ...ours })
      assert.deepEqual([verdict.result, verdict.why], ['injected', undefined])
    }
  })

  test('goes by our volume-path and directory', () => {
    const { certificates } = configOf(
      admitted({ ...ask(), 'certferry.io/volume-path': '/certs', 'certferry.io/directory.web': 'here' }),
    )
    assert.deepEqual(certificates[0].outputs, [{ directory: '/certs/here', kind: 'combined', file: 'web' }])
  })

  test('is taken from manifests as well', () => {
    const { injected } = injectManifests(stringify({ ...podWith(ask()), kind: 'Pod' }), MODE, 'web.yaml')
    assert.deepEqual(injected, ['Pod without a name'])
    assert.deepEqual(injectManifests(stringify({ ...podWith(ask()), kind: 'Pod' }), CONTEXT, 'web.yaml').injected, [])
  })

  test('on a pod that vault-k8s has injected is left alone', () => {
    assert.equal(admitted(ask({ 'agent-inject-status': 'injected' })).verdict.result, 'skipped')
  })
})
