import assert from 'node:assert/strict'
import { chmodSync } from 'node:fs'
import { describe, it, test } from 'node:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { loadConfig } from '../../src/config/config.ts'
import { ConfigError } from '../../src/config/problems.ts'
import { Secret } from '../../src/core/secret.ts'
import { errorOf, fileWith, folder, load, problemsOf, withMore, withOutputs, withSource, withVault } from './support.ts'

interface Case {
  readonly text: string
  /** `line:column`; undefined where the file alone can be named. */
  readonly at: string | undefined
  readonly path: string
  readonly says: RegExp
}

const reload = (reload: string) => withMore(`    reload: [{ ${reload} }]`)
const SECOND = `  - name: NAME
    source: { kind: dev-ca, directory: /ca, commonName: b.example }
    outputs: [{ kind: pem, directory: DIRECTORY }]`
const second = (name: string, directory: string) =>
  withMore(SECOND.replace('NAME', name).replace('DIRECTORY', directory))
const AUTH = 'auth: { kind: token, tokenFile: /token }'

const BAD: Readonly<Record<string, Case>> = {
  'an empty file': { text: '', at: undefined, path: '', says: /^is empty$/ },
  'a file of comments': { text: '# later\n', at: undefined, path: '', says: /^is empty$/ },
  'text alone': { text: 'hello', at: '1:1', path: '', says: /^must be a map of keys and values, not text/ },
  'a list': { text: '- a', at: '1:1', path: '', says: /not a list/ },
  'YAML that ends early': { text: 'a: [1, 2\nb: }\n', at: '2:1', path: '', says: /^not valid YAML: Flow sequence/ },
  'a tab': { text: 'a:\n\tb: 1\n', at: '2:1', path: '', says: /^not valid YAML: Tabs are not allowed/ },
  'a second document': { text: withMore('---\na: 1'), at: '5:1', path: '', says: /second YAML document/ },
  'an unknown tag': { text: withMore('').replace('web', '!run web'), at: '2:11', path: '', says: /Unresolved tag/ },
  'a list as key': { text: withMore('? [a, b]\n: 1'), at: '5:3', path: '', says: /^a key must be text$/ },
  'a key that stands twice': {
    text: withMore('log: { level: info }\nlog: { level: warn }'),
    at: '6:1',
    path: '',
    says: /^this key stands here a second time$/,
  },
  'an unset alias': { text: withMore('').replace('web', '*web'), at: undefined, path: '', says: /Unresolved alias/ },
  'an unknown key at the top': {
    text: withMore('volume: [/tls]'),
    at: '5:1',
    path: 'volume',
    says: /^unknown key; did you mean "volumes"\?$/,
  },
  'a key that could forge a line': {
    text: withMore('"x\\e[2K": 1'),
    at: '5:1',
    path: 'x\\x1b[2K',
    says: /^unknown key/,
  },
  'an unknown key in a kind': {
    text: withOutputs("[{ kind: pem, directory: /tls, mod: '0600' }]"),
    at: '4:45',
    path: 'certificates[0].outputs[0].mod',
    says: /did you mean "mode"\?$/,
  },
  'a key like no other': {
    text: withMore('    renew: { sometimes: true }'),
    at: '5:14',
    path: 'certificates[0].renew.sometimes',
    says: /^unknown key; known here: after, before, cron, timezone, jitter$/,
  },
  'a key called __proto__': {
    text: withMore('__proto__: { a: 1 }'),
    at: '5:1',
    path: '__proto__',
    says: /^unknown key/,
  },
  'a key called constructor': {
    text: withMore('    constructor: 1'),
    at: '5:5',
    path: 'certificates[0].constructor',
    says: /^unknown key/,
  },
  'an unknown kind': {
    text: withOutputs('[{ kind: pam, directory: /tls }]'),
    at: '4:23',
    path: 'certificates[0].outputs[0].kind',
    says: /^unknown kind; did you mean "pem"\? Known here: pem, combined, .*kubernetes-secret \(found "pam"\)$/,
  },
  'one check that is no list': {
    text: withMore('    revocation: { check: crl }'),
    at: '5:26',
    path: 'certificates[0].revocation.check',
    says: /^must be auto, none, or a list of ocsp, crl, vault, such as \[ocsp, crl\] \(found "crl"\)$/,
  },
  'no kind': {
    text: withOutputs('[{ directory: /tls }]'),
    at: '4:15',
    path: 'certificates[0].outputs[0].kind',
    says: /^is required; one of: pem, combined, .*kubernetes-secret$/,
  },
  'text where a map belongs': {
    text: withOutputs('[pem]'),
    at: '4:15',
    path: 'certificates[0].outputs[0]',
    says: /not text \(found "pem"\)/,
  },
  'a map where a list belongs': {
    text: withOutputs('{ kind: pem }'),
    at: '4:14',
    path: 'certificates[0].outputs',
    says: /^must be a list, not a map/,
  },
  'no certificates': { text: 'log: {}', at: '1:1', path: 'certificates', says: /^needs at least one/ },
  'an empty list of certificates': { text: 'certificates: []', at: '1:15', path: 'certificates', says: /at least one/ },
  'a value left out': {
    text: 'certificates:\n',
    at: '1:14',
    path: 'certificates',
    says: /^must be a list, but is empty$/,
  },
  'a missing name': {
    text: withMore('').replace('name: web', 'key: {}'),
    at: '2:5',
    path: 'certificates[0].name',
    says: /^is required$/,
  },
  'a name with a blank': {
    text: withMore('').replace('web', 'a b'),
    at: '2:11',
    path: 'certificates[0].name',
    says: /1 to 63 letters.*"a b"/,
  },
  'a missing directory': {
    text: withOutputs('[{ kind: pem }]'),
    at: '4:15',
    path: 'certificates[0].outputs[0].directory',
    says: /^is required$/,
  },
  'a number where text belongs': {
    text: withMore('admin: { listen: 9443 }'),
    at: '5:18',
    path: 'admin.listen',
    says: /^must be text, not a number \(found 9443\)/,
  },
  'text where a number belongs': {
    text: withMore('    renew: { jitter: some }'),
    at: '5:22',
    path: 'certificates[0].renew.jitter',
    says: /^must be a number, not text/,
  },
  'text where yes or no belongs': {
    text: withSource('{ kind: dev-ca, directory: /ca, commonName: a, excludeCnFromSans: yes }'),
    at: '3:79',
    path: 'certificates[0].source.excludeCnFromSans',
    says: /^must be true or false, not text \(found "yes"\)/,
  },
  'too much': {
    text: withMore('    renew: { jitter: 3 }'),
    at: '5:22',
    path: 'certificates[0].renew.jitter',
    says: /^must be at most 0.5 \(found 3\)/,
  },
  'a word that is not among the choices': {
    text: withOutputs('[{ kind: pem, directory: /tls, layout: nginx-inclued }]'),
    at: '4:53',
    path: 'certificates[0].outputs[0].layout',
    says: /^must be one of generation, nginx-include, flat; did you mean "nginx-include"\?/,
  },
  'G2 mode: 0600 without quotes': {
    text: withOutputs('[{ kind: pem, directory: /tls, mode: 0600 }]'),
    at: '4:51',
    path: 'certificates[0].outputs[0].mode',
    says: /^must be a quoted octal string such as '0600', not the number 600/,
  },
  'a mode that lets others read the key': {
    text: withOutputs("[{ kind: pem, directory: /tls, mode: '0644' }]"),
    at: '4:51',
    path: 'certificates[0].outputs[0].mode',
    says: /nothing to others/,
  },
  'a duration of no unit': {
    text: withMore('    startupGrace: 120'),
    at: '5:19',
    path: 'certificates[0].startupGrace',
    says: /^must be a duration such as 90s.*\(found 120\)/,
  },
  'a duration in fortnights': {
    text: withMore('    check: { minTtl: 2 fortnights }'),
    at: '5:22',
    path: 'certificates[0].check.minTtl',
    says: /"2 fortnights" is not a duration; write for example 90s/,
  },
  'a fraction above 1': {
    text: withMore('    renew: { after: 3/2 }'),
    at: '5:21',
    path: 'certificates[0].renew.after',
    says: /"3\/2" is not a fraction between 0 and 1/,
  },
  'a fraction that is a list': {
    text: withMore('    renew: { after: [2, 3] }'),
    at: '5:21',
    path: 'certificates[0].renew.after',
    says: /^must be a fraction such as 2\/3/,
  },
  'a cron pattern out of range': {
    text: withMore("    renew: { cron: '99 * * * *' }"),
    at: '5:20',
    path: 'certificates[0].renew.cron',
    says: /^is no cron pattern such as '0 3 \* \* \*': .*99/,
  },
  'a cron pattern that never runs': {
    text: withMore("    renew: { cron: '0 0 31 2 *' }"),
    at: '5:20',
    path: 'certificates[0].renew.cron',
    says: /^never runs/,
  },
  'a time zone on Mars': {
    text: withMore("    renew: { cron: '0 3 * * *', timezone: Mars/Olympus }"),
    at: '5:43',
    path: 'certificates[0].renew.timezone',
    says: /^is no IANA time zone/,
  },
  'a time zone without cron': {
    text: withMore('    renew: { timezone: UTC }'),
    at: '5:24',
    path: 'certificates[0].renew.timezone',
    says: /^needs cron/,
  },
  'after together with before': {
    text: withMore('    renew: { after: 2/3, before: 1h }'),
    at: '5:34',
    path: 'certificates[0].renew.before',
    says: /^cannot be given together with after/,
  },
  'a relative path': {
    text: withOutputs('[{ kind: pem, directory: tls }]'),
    at: '4:39',
    path: 'certificates[0].outputs[0].directory',
    says: /^must be an absolute path \(found "tls"\)/,
  },
  'a path with ..': {
    text: withOutputs('[{ kind: pem, directory: /tls/../etc }]'),
    at: '4:39',
    path: 'certificates[0].outputs[0].directory',
    says: /^must not contain "\." or "\.\."/,
  },
  'a path with a null byte': {
    text: withOutputs('[{ kind: pem, directory: "/tls\\0x" }]'),
    at: '4:39',
    path: 'certificates[0].outputs[0].directory',
    says: /control characters.*"\/tls\\u0000x"/,
  },
  'a file name that is a path': {
    text: withOutputs('[{ kind: pem, directory: /tls, files: { key: /etc/key } }]'),
    at: '4:59',
    path: 'certificates[0].outputs[0].files.key',
    says: /^must be a name without "\/"/,
  },
  'a file name of 256 letters': {
    text: withOutputs(`[{ kind: pem, directory: /tls, files: { key: ${'k'.repeat(256)} } }]`),
    at: '4:59',
    path: 'certificates[0].outputs[0].files.key',
    says: /^must not be longer than 200 bytes \(found "k{80}…"\)/,
  },
  'a file name twice in one output': {
    text: withOutputs('[{ kind: pem, directory: /tls, files: { key: tls.crt } }]'),
    at: '4:52',
    path: 'certificates[0].outputs[0].files',
    says: /^names a file twice/,
  },
  'a name that two certificates bear': {
    text: second('web', '/tls2'),
    at: '5:11',
    path: 'certificates[1].name',
    says: /^is the name of certificates\[0\] already/,
  },
  'a token file that is one of a certificate': {
    text: `vault: { address: 'https://v', auth: { kind: token, token: x }, tokenSink: { file: /a/tls.key } }
certificates: [{ name: a, source: { kind: dev-ca, directory: /ca, commonName: a }, outputs: [{ kind: pem, directory: /a }] }]
`,
    at: '1:84',
    path: 'vault.tokenSink.file',
    says: /^is a file of certificate "a"/,
  },
  'an environment that names a secret which is not there': {
    text: `certificates: [{ name: a, source: { kind: dev-ca, directory: /ca, commonName: a }, outputs: [{ kind: pem, directory: /a }] }]
exec: { env: { PASSWORD: app.db.password } }
vault: { address: 'https://v', auth: { kind: token, token: x } }
`,
    at: '2:26',
    path: 'exec.env.PASSWORD',
    says: /^names no secret "app"; there are: none/,
  },
  'a connection that is not there': {
    text: `secrets: [{ name: a, values: { v: { kind: vault-kv, path: x, vault: other } } }]
vaults: { partner: { address: 'https://v', auth: { kind: token, token: x } } }
`,
    at: '1:35',
    path: 'secrets[0].values.v',
    says: /^names the connection "other", which is not in vaults; there are: partner/,
  },
  'a template and a file of one': {
    text: `vault: { address: 'https://v', auth: { kind: token, token: x } }
secrets: [{ name: a, values: { v: { kind: vault-kv, path: x } }, outputs: [{ kind: template, directory: /s, file: f, template: a, templateFile: /t }] }]
`,
    at: '2:76',
    path: 'secrets[0].outputs[0]',
    says: /needs either template or templateFile/,
  },
  'a directory that two certificates want': {
    text: second('api', '/tls/'),
    at: '7:39',
    path: 'certificates[1].outputs[0].directory',
    says: /^is the directory of certificate "web" already/,
  },
  'F18 a directory below that of another certificate': {
    text: second('api', '/tls/..gen-1795000000000-aaaaaaaa'),
    at: '7:39',
    path: 'certificates[1].outputs[0].directory',
    says: /^and \/tls, the directory of certificate "web", are one within the other/,
  },
  'F18 a directory above that of another output': {
    text: withOutputs('[{ kind: pem, directory: /tls/a }, { kind: pem, directory: /tls }]'),
    at: '4:73',
    path: 'certificates[0].outputs[1].directory',
    says: /^and \/tls\/a, the directory of certificate "web", are one within the other/,
  },
  'a file that two outputs write': {
    text: withOutputs('[{ kind: pem, directory: /tls }, { kind: combined, directory: /tls, file: tls.key }]'),
    at: '4:76',
    path: 'certificates[0].outputs[1].directory',
    says: /^another output writes \/tls\/tls\.key already/,
  },
  'nginx-include without a certificate in PEM': {
    text: withOutputs('[{ kind: pem, directory: /a }, { kind: der, directory: /tls, layout: nginx-include }]'),
    at: '4:83',
    path: 'certificates[0].outputs[1].layout',
    says: /^nginx-include needs the certificate and its key in PEM in this directory/,
  },
  'a source that is its own output': {
    text: withOutputs('[{ kind: pem, directory: /tls }]').replace(
      /source: .*/,
      'source: { kind: file, certFile: /tls//tls.crt, keyFile: /in/tls.key }',
    ),
    at: '3:37',
    path: 'certificates[0].source.certFile',
    says: /^is a file that certificate "web" itself writes; name the one it comes from/,
  },
  'two lists in one file': {
    text: `${withOutputs('[{ kind: pem, directory: /tls }]')}
trust:
  - name: peers
    anchors: [{ kind: system }]
    outputs: [{ kind: crl, directory: /trust, file: a, deltaFile: a }]
`,
    at: '9:67',
    path: 'trust[0].outputs[0].deltaFile',
    says: /^names a file twice/,
  },
  'a trust of what it publishes': {
    text: `${withOutputs('[{ kind: pem, directory: /tls }]')}
trust:
  - name: peers
    anchors: [{ kind: file, file: /in/ca.pem }, { kind: file, file: /trust/ca.crt }]
    outputs: [{ kind: pem, directory: /trust }]
`,
    at: '8:69',
    path: 'trust[0].anchors[1].file',
    says: /^is a file that trust "peers" itself writes/,
  },
  'one set with a directory of no output above': {
    text: withOutputs('[{ kind: pem, directory: /tls }, { kind: der, directory: /der, oneSetWith: /tsl }]'),
    at: '4:89',
    path: 'certificates[0].outputs[1].oneSetWith',
    says: /^names \/tsl, which is no directory of an output above with a set of its own; there are: \/tls/,
  },
  'one set for half of a directory': {
    text: withOutputs(
      '[{ kind: pem, directory: /a }, { kind: pem, directory: /b }, { kind: der, directory: /b, oneSetWith: /a }]',
    ),
    at: '4:115',
    path: 'certificates[0].outputs[2].oneSetWith',
    says: /^differs from that of another output in \/b/,
  },
  'one set in plain files': {
    text: withOutputs(
      '[{ kind: pem, directory: /tls }, { kind: der, directory: /der, layout: flat, oneSetWith: /tls }]',
    ),
    at: '4:103',
    path: 'certificates[0].outputs[1].oneSetWith',
    says: /^goes with layout: generation/,
  },
  'nginx-include without a key': {
    text: withOutputs('[{ kind: pem, directory: /tls, layout: nginx-include, files: { key: false } }]'),
    at: '4:53',
    path: 'certificates[0].outputs[0].layout',
    says: /^nginx-include needs/,
  },
  'two layouts in one directory': {
    text: withOutputs('[{ kind: pem, directory: /tls }, { kind: combined, directory: /tls, layout: flat }]'),
    at: '4:90',
    path: 'certificates[0].outputs[1].layout',
    says: /^differs from the layout "generation"/,
  },
  'two views of one directory': {
    text: withOutputs('[{ kind: pem, directory: /tls }, { kind: combined, directory: /tls, seenAs: /x }]'),
    at: '4:90',
    path: 'certificates[0].outputs[1].seenAs',
    says: /^differs from that of another output/,
  },
  'a certificate without a file': {
    text: withOutputs('[{ kind: kubernetes-secret, name: web }]'),
    at: '4:14',
    path: 'certificates[0].outputs',
    says: /^needs an output that writes files as well, such as pem/,
  },
  'a Secret that two outputs want': {
    text: withOutputs(
      '[{ kind: pem, directory: /tls }, { kind: kubernetes-secret, name: web }, { kind: kubernetes-secret, name: web }]',
    ),
    at: '4:120',
    path: 'certificates[0].outputs[2].name',
    says: /^Secret web is that of certificate "web" already/,
  },
  'an owner in another namespace': {
    text: withOutputs(
      '[{ kind: pem, directory: /tls }, { kind: kubernetes-secret, name: web, namespace: edge, owner: workload }]',
    ),
    at: '4:109',
    path: 'certificates[0].outputs[1].owner',
    says: /^must be none with a namespace/,
  },
  'a label that Kubernetes would refuse': {
    text: withOutputs('[{ kind: pem, directory: /tls }, { kind: kubernetes-secret, name: web, labels: { a: b c } }]'),
    at: '4:98',
    path: 'certificates[0].outputs[1].labels.a',
    says: /^must be a label value/,
  },
  'an API server without TLS': {
    text: withMore('kubernetes: { apiServer: "http://10.0.0.1" }'),
    at: '5:26',
    path: 'kubernetes.apiServer',
    says: /^must be an https address/,
  },
  'an output outside the volumes': {
    text: withMore('volumes: [/tlsx, /data]'),
    at: '4:39',
    path: 'certificates[0].outputs[0].directory',
    says: /^is outside volumes \(\/tlsx, \/data\)/,
  },
  'a relative volume': {
    text: withMore('volumes: [data]'),
    at: '5:11',
    path: 'volumes[0]',
    says: /^must be an absolute path/,
  },
  'no name to certify': {
    text: withSource('{ kind: dev-ca, directory: /ca }'),
    at: '3:13',
    path: 'certificates[0].source',
    says: /^needs commonName or altNames/,
  },
  'a variable that is not set': {
    text: withSource("{ kind: dev-ca, directory: /ca, commonName: '${NOBODY}' }"),
    at: '3:57',
    path: 'certificates[0].source.commonName',
    says: /^\$\{NOBODY\}: the environment variable NOBODY is not set$/,
  },
  'a reference without quotes': {
    text: withSource('{ kind: dev-ca, directory: /ca, commonName: ${NOBODY} }'),
    at: '3:58',
    path: '',
    says: /^write '\$\{…\}' in quotes/,
  },
  'a reference of no known form': {
    text: withMore('').replace('web', '${9-}'),
    at: '2:11',
    path: 'certificates[0].name',
    says: /^\$\{9-\}: write \$\{NAME\}/,
  },
  'a reference that is not closed': {
    text: withMore('').replace('web', '${WEB'),
    at: '2:11',
    path: 'certificates[0].name',
    says: /^\$\{ lacks its closing \}/,
  },
  'a referenced file that is missing': {
    text: withMore('').replace('web', '${file:/nowhere/at-all}'),
    at: '2:11',
    path: 'certificates[0].name',
    says: /^\$\{file:\/nowhere\/at-all\}: the file cannot be read \(ENOENT\)$/,
  },
  'a referenced file by relative path': {
    text: withMore('').replace('web', '${file:name}'),
    at: '2:11',
    path: 'certificates[0].name',
    says: /the path must be absolute$/,
  },
  'a listen address without port': {
    text: withMore("admin: { listen: '127.0.0.1' }"),
    at: '5:18',
    path: 'admin.listen',
    says: /^must be host:port/,
  },
  'a port above 65535': {
    text: withMore("admin: { listen: '127.0.0.1:99999' }"),
    at: '5:18',
    path: 'admin.listen',
    says: /at most 65535/,
  },
  'a socket path longer than any': {
    text: withMore(`admin: { socket: /${'s'.repeat(97)} }`),
    at: '5:18',
    path: 'admin.socket',
    says: /^must not be longer than 97 bytes/,
  },
  'a command as one text': {
    text: reload('kind: exec, command: nginx -s reload'),
    at: '5:37',
    path: 'certificates[0].reload[0].command',
    says: /^must be a list such as \[nginx, -s, reload\]; no shell is run/,
  },
  'a signal nobody reloads by': {
    text: reload('kind: signal, pidFile: /x, signal: SIGKILL'),
    at: '5:51',
    path: 'certificates[0].reload[0].signal',
    says: /^must be one of SIGHUP, /,
  },
  'a signal to nobody': {
    text: reload('kind: signal, signal: SIGHUP'),
    at: '5:14',
    path: 'certificates[0].reload[0]',
    says: /^needs pidFile, process, or both/,
  },
  'a probe of no address': {
    text: withMore("    verify: [{ kind: tls, address: '127.0.0.1' }]"),
    at: '5:36',
    path: 'certificates[0].verify[0].address',
    says: /is no address; write host:port/,
  },
  'a fraction where a whole number belongs': {
    text: withMore("    verify: [{ kind: tls, address: '[::1]:443', workers: 1.5 }]"),
    at: '5:58',
    path: 'certificates[0].verify[0].workers',
    says: /^must be a whole number \(found 1\.5\)/,
  },
  'a variable of no name': {
    text: reload("kind: exec, command: [nginx], env: { '1': x }"),
    at: '5:58',
    path: 'certificates[0].reload[0].env.1',
    says: /^unfit key: must be a name of letters, digits and _/,
  },
  'vault-pki without Vault': {
    text: withSource('{ kind: vault-pki, role: web, commonName: a }'),
    at: '3:13',
    path: 'certificates[0].source',
    says: /^needs vault\.address \(or VAULT_ADDR\)/,
  },
  'Vault by http beyond this machine': {
    text: withVault(`{ address: 'http://vault.example:8200', ${AUTH} }`),
    at: '1:19',
    path: 'vault.address',
    says: /must use https; http is accepted on a loopback address only/,
  },
  'Vault without a scheme': {
    text: withVault(`{ address: 'vault:8200', ${AUTH} }`),
    at: '1:19',
    path: 'vault.address',
    says: /must begin with https/,
  },
  'Vault without a login': {
    text: withVault("{ address: 'https://vault:8200' }"),
    at: '1:8',
    path: 'vault.auth',
    says: /^is required$/,
  },
  'two tokens': {
    text: withVault("{ address: 'https://vault:8200', auth: { kind: token, token: t, tokenFile: /t } }"),
    at: '1:47',
    path: 'vault.auth',
    says: /^needs either token or tokenFile/,
  },
  'a misspelt key of a login': {
    text: withVault("{ address: 'https://vault:8200', auth: { kind: jwt, rol: web, tokenFile: /t } }"),
    at: '1:60',
    path: 'vault.auth.rol',
    says: /^unknown key; did you mean "role"\?$/,
  },
  'a misspelt key of one login of several': {
    text: withVault(
      "{ address: 'https://vault:8200', auth: [{ kind: token, token: t }, { kind: jwt, rol: web, tokenFile: /t }] }",
    ),
    at: '1:88',
    path: 'vault.auth[1].rol',
    says: /^unknown key; did you mean "role"\?$/,
  },
  'no login in the list': {
    text: withVault("{ address: 'https://vault:8200', auth: [] }"),
    at: '1:47',
    path: 'vault.auth',
    says: /^needs at least one method$/,
  },
  'half a client certificate': {
    text: withVault(`{ address: 'https://vault:8200', clientCertFile: /c, ${AUTH} }`),
    at: '1:8',
    path: 'vault.clientKeyFile',
    says: /need each other/,
  },
  'too many aliases': {
    text: `a: &a [${'x,'.repeat(9)}x]\nb: &b [${'*a,'.repeat(9)}*a]\nc: &c [${'*b,'.repeat(9)}*b]\nd: [${'*c,'.repeat(9)}*c]\n`,
    at: undefined,
    path: '',
    says: /^Excessive alias count/,
  },
  'a hundred levels of lists': {
    text: `a: ${'['.repeat(100)}${']'.repeat(100)}`,
    at: undefined,
    path: '',
    says: /^is nested more than 64 levels deep/,
  },
  'thousands of levels of lists': {
    text: `a: ${'['.repeat(5000)}${']'.repeat(5000)}`,
    at: '1:*',
    path: '',
    says: /nested too deeply/,
  },
  'nine megabytes': {
    text: '#'.repeat(9_000_000),
    at: undefined,
    path: '',
    says: /^is 9000000 bytes; at most 8388608 are read/,
  },
}

describe('G1 a config with one mistake is refused at its place:', () => {
  for (const [name, { text, at, path, says }] of Object.entries(BAD)) {
    it(name, () => {
      const { code, problems, kind } = errorOf(text)
      assert.equal(code, 'CONFIG_INVALID')
      assert.equal(kind.exit, 78)
      assert.equal(problems.length, 1, problemsOf(text).join('\n'))
      const [line = ''] = problemsOf(text)
      const place = at === undefined ? 'c.yaml' : `c.yaml:${at}`
      if (at?.endsWith('*')) assert.match(line, /^c.yaml:1:\d+ {2}/)
      else
        assert.ok(line.startsWith(`${place}  ${path === '' ? '' : `${path}: `}`), `${line}\nis not at ${place} ${path}`)
      assert.match(line.replace(/^\S+ {2}/, '').replace(path === '' ? '' : `${path}: `, ''), says)
    })
  }
})

describe('G1 several mistakes', () => {
  const text = `log: { level: loud }
vault: { adress: 'https://x', auth: { kind: token, token: t } }
certificates:
  - name: '\${NOBODY}'
    source: { kind: vault-pki, role: web, commonName: a.example, ttl: soon }
    outputs: [{ kind: pem, directory: tls, mode: 0600 }, { kind: pem }]
    reload: [{ kind: signal, pidFile: /x }]
    renew: { aftr: 2/3 }
admin: { socket: x }
admin: { socket: /x }
`
  it('are told all at once, in the order of the file, places aligned', () => {
    assert.deepEqual(
      problemsOf(text).map((line) => line.split(': ')[0]),
      [
        'c.yaml:1:15  log.level',
        'c.yaml:2:8   vault.address',
        'c.yaml:2:10  vault.adress',
        'c.yaml:4:11  certificates[0].name',
        'c.yaml:5:71  certificates[0].source.ttl',
        'c.yaml:6:39  certificates[0].outputs[0].directory',
        'c.yaml:6:50  certificates[0].outputs[0].mode',
        'c.yaml:6:58  certificates[0].outputs[1].directory',
        'c.yaml:8:14  certificates[0].renew.aftr',
        'c.yaml:10:1  this key stands here a second time',
      ],
    )
    assert.match(errorOf(text).message, /c\.yaml: 10 problems\n/)
  })
})

describe('a config file', () => {
  const codeOf = (file: string) => {
    try {
      loadConfig(file, {})
      return 'accepted'
    } catch (error) {
      return error instanceof ConfigError
        ? `${error.code}: ${error.problems[0]?.message.replaceAll(folder, '')}`
        : error
    }
  }

  it('that is not there, or is a directory, is unreadable', () => {
    assert.equal(codeOf(`${folder}/none.yaml`), 'CONFIG_UNREADABLE: no such file')
    assert.equal(codeOf(folder), 'CONFIG_UNREADABLE: is a directory')
  })

  it('that group or others may write is unsafe', () => {
    const file = fileWith(withMore(''), 'open.yaml')
    for (const mode of [0o620, 0o602, 0o666]) {
      chmodSync(file, mode)
      assert.equal(
        codeOf(file),
        `CONFIG_UNSAFE: can be changed by others (mode 0${mode.toString(8)}); chmod go-w /open.yaml`,
      )
    }
    chmodSync(file, 0o644)
    assert.equal(codeOf(file), 'accepted')
  })

  it('may be JSON', () => {
    const { certificates } = load(
      JSON.stringify({
        certificates: [
          {
            name: 'web',
            source: { kind: 'dev-ca', directory: '/ca', commonName: 'a.example' },
            outputs: [{ kind: 'pem', directory: '/tls' }],
          },
        ],
      }),
    )
    assert.equal(certificates[0]?.name, 'web')
  })

  it('may use anchors and aliases', () => {
    const { certificates } = load(
      second('api', '/tls2')
        .replace('source: {', 'source: &s {')
        .replace(/(api\n {4}source:) .*/, '$1 *s'),
    )
    assert.deepEqual(certificates[1]?.source, certificates[0]?.source)
  })

  it('is frozen once loaded, but for secrets, which hold their own', () => {
    const config = load(withVault("{ address: 'https://v:8200', auth: { kind: token, token: t } }"))
    assert.ok(Object.isFrozen(config.certificates[0]?.outputs[0]))
    assert.throws(() => Object.assign(config.admin, { listen: 'x' }), TypeError)
  })
})

describe('references', () => {
  const nameIn = (name: string, env = {}) => load(withMore('').replace('web', name), env).certificates[0]?.name

  it('stand for a variable, a default where it is unset or empty, or the content of a file', () => {
    const file = fileWith('from-file\n', 'name')
    assert.equal(nameIn('${NAME}', { NAME: 'n' }), 'n')
    assert.equal(nameIn('a-${NAME}-${OTHER}', { NAME: 'n', OTHER: 'o' }), 'a-n-o')
    assert.equal(nameIn('${NAME:-d}', { NAME: '' }), 'd')
    assert.equal(nameIn('${NAME:-d}', { NAME: 'n' }), 'n')
    assert.equal(nameIn(`\${file:${file}}`), 'from-file')
  })

  it('are not looked for in what they stand for, nor after a doubled dollar', () => {
    const commonName = (text: string, env = {}) =>
      load(
        withMore('').replace('a.example', () => `'${text}'`),
        env,
      ).certificates[0]?.source
    assert.partialDeepStrictEqual(commonName('$${NAME}'), { commonName: '${NAME}' })
    assert.partialDeepStrictEqual(commonName('${NAME}', { NAME: '${OTHER}' }), { commonName: '${OTHER}' })
  })

  it('add neither keys nor structure', () => {
    const { source } =
      load(withMore('').replace('commonName: a.example', "commonName: '${NAME}'"), { NAME: 'x, ttl: 1h' })
        .certificates[0] ?? {}
    assert.partialDeepStrictEqual(source, { commonName: 'x, ttl: 1h', ttl: 86_400_000 })
  })
})

describe('variables of the vault CLI', () => {
  const PKI = withSource('{ kind: vault-pki, role: web, commonName: a.example }')
  const ENV = {
    VAULT_ADDR: 'https://env:8200',
    VAULT_TOKEN: 'env-token',
    VAULT_CACERT: '/env.pem',
    VAULT_NAMESPACE: 'env',
  }

  it('fill in what the file leaves out', () => {
    const { vault } = load(PKI, ENV)
    assert.partialDeepStrictEqual(vault, { address: 'https://env:8200', caFile: '/env.pem', namespace: 'env' })
    assert.deepEqual(
      vault?.auth && 'token' in vault.auth && vault.auth.token instanceof Secret && vault.auth.token.reveal(),
      'env-token',
    )
  })

  it('give way to the file', () => {
    const { vault } = load(
      `vault: { address: 'https://file:8200', namespace: file, auth: { kind: token, tokenFile: /t } }\n${PKI}`,
      ENV,
    )
    assert.partialDeepStrictEqual(vault, {
      address: 'https://file:8200',
      namespace: 'file',
      caFile: '/env.pem',
      auth: { kind: 'token', tokenFile: '/t' },
    })
  })

  it('mean nothing to a config that asks no Vault', () => {
    assert.equal(load(withMore(''), { ...ENV, VAULT_SKIP_VERIFY: '1' }).vault, undefined)
  })

  it('are named where they are wrong', () => {
    assert.match(
      problemsOf(PKI, { ...ENV, VAULT_CACERT: 'ca.pem' }).join(),
      /^c\.yaml:1:1 {2}vault\.caFile: must be an absolute path \(from VAULT_CACERT\)$/,
    )
    assert.match(
      problemsOf(PKI, { ...ENV, VAULT_TOKEN: ' ' }).join(),
      /vault\.auth\.token: must not be empty.* \(from VAULT_TOKEN\)$/,
    )
  })

  it('do not turn verification off', () => {
    for (const value of ['1', 'true', 'T'])
      assert.match(
        problemsOf(PKI, { ...ENV, VAULT_SKIP_VERIFY: value }).join(),
        /VAULT_SKIP_VERIFY is set; certferry does not talk to a Vault it cannot authenticate/,
      )
    assert.ok(load(PKI, { ...ENV, VAULT_SKIP_VERIFY: '0' }))
  })
})

describe('a secret', () => {
  const TOKEN = 'hvs.CAESIJ8vQ2m4secretsecret'
  const leaks: Readonly<Record<string, string>> = {
    'under its key': withVault(
      `{ address: x, auth: { kind: approle, roleId: r, secretId: ${TOKEN}, secretIdFile: /x } }`,
    ),
    'under a misspelt key': withVault(`{ address: 'https://v:8200', auth: { kind: token, tokn: ${TOKEN} } }`),
    'in another field': withMore(`    startupGrace: ${TOKEN}`),
    'in a broken line': withMore(`    startupGrace: a ${TOKEN}: [`),
    'in a header': reload(`kind: http, url: 'http://localhost/', headers: { 'X Y': ${TOKEN} }`),
    'in a variable of a command': reload(`kind: exec, command: [true], env: { '1': ${TOKEN} }`),
    'in the address': withVault(`{ address: 'https://u:${TOKEN}@v:8200', ${AUTH} }`),
    'from the environment, in another field': withMore(
      "    startupGrace: '${SECRET}'\n    renew: { after: '${SECRET}', cron: '${SECRET}' }",
    ),
  }
  for (const [name, text] of Object.entries(leaks)) {
    it(`is not printed: ${name}`, () => {
      const error = errorOf(text, { SECRET: 'correct-horse-battery', VAULT_TOKEN: 'correct-horse-battery' })
      const printed = `${error.message}${JSON.stringify(error.problems)}${error.stack}`
      assert.doesNotMatch(printed, /secretsecret|correct-horse/)
    })
  }

  it('may change without being kept: the identity of the config changes with it', () => {
    const identity = (token: string) =>
      load(withVault("{ address: 'https://v:8200', auth: { kind: token, token: '${T}' } }"), { T: token }).vaultIdentity
    assert.notEqual(identity('a'), identity('b'))
    assert.equal(identity('a'), identity('a'))
  })
})

test('G3 whatever the file holds, loading it throws a ConfigError or nothing', () => {
  const scalar = fc.constantFrom(
    'web',
    '0600',
    '${X}',
    '${',
    '~',
    '.nan',
    '-1',
    '1e999',
    '/tls',
    '24h',
    "'",
    '"',
    '*a',
    '&a b',
    '!t x',
    '__proto__',
    '2026-01-01',
    'dev-ca',
    'pem',
  )
  const key = fc.constantFrom(
    'certificates',
    'name',
    'source',
    'kind',
    'outputs',
    'directory',
    'vault',
    'renew',
    'after',
    'cron',
    'timezone',
    'volumes',
    'admin',
    'listen',
    'verify',
    'address',
    '__proto__',
    'x',
  )
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: 'medium' },
      scalar,
      fc.array(tie('tree'), { maxLength: 3 }).map((items) => `[${items.join(', ')}]`),
      tie('map'),
    ),
    map: fc
      .array(fc.tuple(key, tie('tree')), { maxLength: 4 })
      .map((pairs) => `{ ${pairs.map(([k, v]) => `${k}: ${v}`).join(', ')} }`),
  }))
  const text = fc.oneof(
    fc.array(fc.tuple(key, tree), { maxLength: 4 }).map((pairs) => pairs.map(([k, v]) => `${k}: ${v}`).join('\n')),
    tree.map((outputs) => withOutputs(String(outputs))),
    tree.map((rest) => withMore(`    renew: ${rest}`)),
    fc.string({ unit: 'binary', maxLength: 60 }),
  )
  fc.assert(
    fc.property(text, (written) => {
      try {
        load(written)
      } catch (error) {
        assert.ok(error instanceof ConfigError, `${written}\n${error instanceof Error ? error.stack : error}`)
        assert.ok(error.problems.length > 0)
        assert.ok(error.problems.every(({ place }) => place.startsWith(folder)))
      }
    }),
    { numRuns: 100 },
  )
})

test('what is valid comes out as it was written, from YAML and JSON alike, and cannot be changed', () => {
  const name = fc.string({ unit: fc.constantFrom(...'abcz09'), minLength: 1, maxLength: 12 }).map((end) => `a${end}`)
  const host = fc.array(name, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'))
  const seconds = fc.integer({ min: 60, max: 1_000_000 })
  const written = fc.record({
    name,
    commonName: host,
    altNames: fc.uniqueArray(host, { maxLength: 3 }),
    grace: seconds,
    jitter: fc.integer({ min: 0, max: 50 }).map((percent) => percent / 100),
    mode: fc.constantFrom('0600', '0640', '0440'),
    layout: fc.constantFrom('generation', 'nginx-include', 'flat'),
  })
  fc.assert(
    fc.property(written, ({ name, commonName, altNames, grace, jitter, mode, layout }) => {
      const tree = {
        certificates: [
          {
            name,
            source: { kind: 'dev-ca', directory: '/ca', commonName, altNames },
            renew: { jitter },
            startupGrace: `${grace}s`,
            outputs: [{ kind: 'pem', directory: `/tls/${name}`, mode, layout }],
          },
        ],
      }
      const [config, same] = [stringify(tree), JSON.stringify(tree)].map((text) => load(text))
      assert.deepEqual(config, same)
      const [certificate] = config?.certificates ?? []
      assert.ok(certificate && Object.isFrozen(certificate))
      assert.equal(certificate.name, name)
      assert.equal(certificate.startupGrace, grace * 1000)
      assert.equal(certificate.renew.jitter, jitter)
      assert.partialDeepStrictEqual(certificate.source, { kind: 'dev-ca', commonName, altNames })
      const output = { kind: 'pem', directory: `/tls/${name}`, mode: Number.parseInt(mode, 8), layout }
      assert.partialDeepStrictEqual(certificate.outputs, [output])
    }),
    { numRuns: 50 },
  )
})
