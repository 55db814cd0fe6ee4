import { basename, isAbsolute, join, resolve } from 'node:path'
import {
  type Context,
  createDraft,
  given,
  type Migration,
  type Notes,
  type PlainMap,
  reference,
  type Surroundings,
  settleRest,
} from './migration.ts'
import { type Settings, settingsFrom } from './settings.ts'

/** A config of spiffe-helper: https://github.com/spiffe/spiffe-helper. Throws USAGE where it cannot be read. */
export function migrateSpiffeHelper(text: string, file: string, surroundings: Surroundings): Migration {
  const root = settingsFrom(text, file)
  const draft = createDraft()
  const context: Context = { draft, surroundings, tool: 'spiffe-helper' }
  const get = (name: string) => root.text(name) ?? root.text(camel(name))
  const isOnce = root.flag('daemon_mode') === false
  const certificate = given({
    name: 'svid',
    source: sourceOf(root, get, context),
    outputs: [outputOf(root, get, context)],
    ...reloadOf(root, get, context),
  })
  const admin = adminOf(root, context)
  settleRest(root, '', { lost: LOST, covered: COVERED }, context)
  return draft.finish(
    given({ ...(admin && { admin }), certificates: [certificate] }),
    isOnce ? 'certferry once -c FILE' : 'certferry run -c FILE',
  )
}

/** spiffe-helper knew its settings by such names before. */
const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())

type Get = (name: string) => string | undefined

/** Without an address spiffe-helper takes the one that SPIFFE gives to every workload. */
function sourceOf(root: Settings, get: Get, context: Context): PlainMap {
  const address = get('agent_address') ?? ''
  const federated = root.flag('include_federated_domains') ?? root.flag('includeFederatedDomains')
  const isUrl = /^(?:unix|tcp):/.test(address)
  const source: PlainMap = given({
    kind: 'spiffe',
    socket: address === '' ? reference('SPIFFE_ENDPOINT_SOCKET') : isUrl ? address : absolute(address, context),
    hint: get('hint') || undefined,
    federated: federated || undefined,
  })
  context.draft.remark(
    source,
    'socket',
    'The agent must know certferry: its selectors (user, path, pod) have to match certferry now, not spiffe-helper.',
  )
  return source
}

function outputOf(root: Settings, get: Get, { draft, surroundings }: Context): PlainMap {
  const directory = get('cert_dir') ?? '.'
  const files = given({
    certificate: get('svid_file_name') || undefined,
    key: get('svid_key_file_name') || undefined,
    ca: get('svid_bundle_file_name') || undefined,
  })
  const [keyMode, certificateMode] = [root.mode('key_file_mode'), root.mode('cert_file_mode')]
  const output = given({
    kind: 'pem',
    directory: isAbsolute(directory) ? directory : resolve(surroundings.directory, directory),
    ...(Object.keys(files).length > 0 && { files }),
    mode: atMost(keyMode, 0o640),
    certificateMode: atMost(certificateMode ?? '0644', 0o644),
  })
  if (!isAbsolute(directory))
    draft.remark(
      output,
      'directory',
      'It was taken from the working directory of spiffe-helper; check that it is this one.',
    )
  draft.remark(
    output,
    'files',
    'All files of a set are swapped at once: no reader sees a certificate with the key of another.',
  )
  if (root.flag('add_intermediates_to_bundle') ?? root.flag('addIntermediatesToBundle'))
    draft.lose({
      what: 'add_intermediates_to_bundle',
      line: root.lineOf('add_intermediates_to_bundle'),
      why: 'intermediates follow the certificate, as servers send them (RFC 8446); chain: chain.crt of files writes them alone',
    })
  return output
}

const atMost = (mode: string | undefined, most: number): string | undefined =>
  mode === undefined ? undefined : ((Number.parseInt(mode, 8) & most) | 0o400).toString(8).padStart(4, '0')

function reloadOf(root: Settings, get: Get, context: Context): PlainMap {
  const { draft } = context
  const [command, pidFile, signal] = [get('cmd') ?? '', get('pid_file_name') ?? '', get('renew_signal') ?? '']
  const args = get('cmd_args') ?? ''
  if (command !== '')
    draft.lose({
      what: 'cmd',
      line: root.lineOf('cmd'),
      why: `certferry run starts no program: start ${[command, args].filter((word) => word !== '').join(' ')} beside it, or by certferry exec -c FILE -- …`,
    })
  if (pidFile !== '' && signal === '')
    draft.lose({
      what: 'pid_file_name',
      line: root.lineOf('pid_file_name'),
      why: 'there is no renew_signal; with one, write reload: [{ kind: signal, pidFile: …, signal: SIGHUP }]',
    })
  if (signal === '') return {}
  const name = signal.startsWith('SIG') ? signal : `SIG${signal}`
  if (pidFile === '' && command === '') {
    draft.lose({
      what: 'renew_signal',
      line: root.lineOf('renew_signal'),
      why: 'neither cmd nor pid_file_name says to whom; write reload: [{ kind: signal, process: …, signal: … }]',
    })
    return {}
  }
  const reload: PlainMap = given({
    kind: 'signal',
    pidFile: pidFile === '' ? undefined : absolute(pidFile, context),
    process: pidFile === '' ? basename(command) : undefined,
    signal: name,
  })
  draft.remark(
    reload,
    'signal',
    'The process is checked before it is signalled, and with verify: [{ kind: tls, address: … }] it is proven that it serves the new certificate.',
  )
  return { reload: [reload] }
}

const absolute = (path: string, { surroundings }: Context): string =>
  isAbsolute(path) ? path : join(surroundings.directory, path)

function adminOf(root: Settings, context: Context): PlainMap | undefined {
  const health = root.block('health_checks')
  if (!health) return undefined
  const isOn = health.flag('listener_enabled') === true
  const port = health.text('bind_port') ?? '8081'
  const [live, ready] = [health.text('liveness_path') ?? '/live', health.text('readiness_path') ?? '/ready']
  settleRest(health, 'health_checks', {}, context)
  if (!isOn) return undefined
  const admin: PlainMap = { listen: `0.0.0.0:${port}` }
  context.draft.remark(
    admin,
    'listen',
    `Probe /livez instead of ${live}, and /readyz instead of ${ready}; /metrics and /status are there, too.`,
  )
  return admin
}

const JWT = 'certferry writes certificates; for tokens keep spiffe-helper'

const LOST: Notes = {
  jwt_svids: JWT,
  jwt_bundle_file_name: JWT,
  jwt_svid_file_mode: JWT,
  jwt_bundle_file_mode: JWT,
}

const COVERED: Notes = {
  omit_expired: 'an expired certificate is never written',
}
