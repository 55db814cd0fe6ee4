import { absolutePath, type Context, given, type Notes, type PlainMap, reference, settleRest } from './migration.ts'
import type { Settings } from './settings.ts'

/** `vault` and `auto_auth` of Vault Agent, as `vault` of certferry. */
export function fromVaultAgent(root: Settings, context: Context): PlainMap {
  const { draft, tool } = context
  const server = root.block('vault')
  const autoAuth = root.block('auto_auth')
  const method = autoAuth?.block('method')
  const vault: PlainMap = {}
  if (server) {
    addServer(vault, server, context)
    addTls(vault, server, { ca: 'ca_cert', cert: 'client_cert', key: 'client_key', name: 'tls_server_name' }, context)
    if (server.flag('tls_skip_verify'))
      draft.lose({ what: 'vault.tls_skip_verify', line: server.lineOf('tls_skip_verify'), why: SKIP_VERIFY })
    settleRest(server, 'vault', { lost: { ca_path: CA_PATH }, covered: SERVER_COVERED }, context)
  }
  if (method) addMethod(vault, method, context)
  else
    draft.lose({
      what: 'auto_auth',
      line: 1,
      why: `is missing, so ${tool} took a token from VAULT_TOKEN; certferry reads it too`,
    })
  for (const sink of autoAuth?.blocks('sink') ?? []) addSink(vault, sink, context)
  coverAddress(vault, server, context)
  if (autoAuth) settleRest(autoAuth, 'auto_auth', { covered: AUTO_AUTH_COVERED }, context)
  return vault
}

/** `vault` of consul-template, as `vault` of certferry. */
export function fromConsulTemplate(root: Settings, context: Context): PlainMap {
  const { draft } = context
  const server = root.block('vault')
  const vault: PlainMap = {}
  if (!server) {
    coverAddress(vault, server, context)
    return vault
  }
  const ssl = server.block('ssl')
  addServer(vault, server, context)
  coverAddress(vault, server, context)
  if (ssl) {
    addTls(vault, ssl, { ca: 'ca_cert', cert: 'cert', key: 'key', name: 'server_name' }, context)
    if (ssl.flag('verify') === false)
      draft.lose({ what: 'vault.ssl.verify', line: ssl.lineOf('verify'), why: SKIP_VERIFY })
    ssl.flag('enabled')
    settleRest(ssl, 'vault.ssl', { lost: { ca_path: CA_PATH, ca_cert_bytes: 'write it as vault.caPem' } }, context)
  }
  const auth = consulTemplateAuth(server, context)
  if (auth) vault.auth = auth
  if (server.flag('renew_token') === false)
    draft.lose({
      what: 'vault.renew_token',
      line: server.lineOf('renew_token'),
      why: 'certferry renews its token as long as Vault lets it, and then logs in again',
    })
  server.flag('enabled')
  settleRest(
    server,
    'vault',
    { lost: { client_user_agent: 'certferry names itself' }, covered: { ...SERVER_COVERED, ...TRANSPORT_COVERED } },
    context,
  )
  return vault
}

const SKIP_VERIFY = 'certferry does not talk to a Vault it cannot authenticate; give vault.caFile'
const CA_PATH = 'put the certificates into one PEM file and name that in vault.caFile'
const SERVER_COVERED: Notes = {
  retry: 'certferry tries on by itself, without end, with growing pauses; what is good stays in place',
}
const AUTO_AUTH_COVERED: Notes = {
  enable_reauth_on_new_credentials:
    'certferry reads the credential anew for each login, and one that was replaced is tried at once',
}
const TRANSPORT_COVERED: Notes = {
  transport: 'vault.timeouts and vault.concurrency have defaults that fit',
  default_lease_duration: 'what has no lease is read again as often as poll of the value says',
  lease_renewal_threshold: 'leases are renewed at two thirds of their life',
}

/** Vault takes slashes around it, too; an empty one is none. */
const namespaceIn = (settings: Settings): string | undefined =>
  settings.text('namespace')?.replace(/^\/+|\/+$/g, '') || undefined

function addServer(vault: PlainMap, server: Settings, { draft }: Context): void {
  const address = server.text('address')
  const namespace = namespaceIn(server)
  if (address !== undefined) vault.address = address
  if (namespace !== undefined) vault.namespace = namespace
  if (address === undefined || !isPlainHttp(address)) return
  vault.address = address.replace(/^http:/i, 'https:')
  draft.lose({
    what: 'vault.address',
    line: server.lineOf('address'),
    why: `${address} is not encrypted, which certferry accepts on a loopback address only; it is written with https, which Vault has to speak`,
  })
}

function coverAddress({ address }: PlainMap, server: Settings | undefined, { draft, tool }: Context): void {
  if (address === undefined)
    draft.cover({
      what: 'vault.address',
      line: server?.line ?? 1,
      why: `is not given: certferry takes it from VAULT_ADDR, as ${tool} did; where that is not set, write it`,
    })
}

const isPlainHttp = (address: string) =>
  /^http:/i.test(address) && !/^http:\/\/(?:localhost|127(?:\.\d+){3}|\[::1\])(?:[:/]|$)/i.test(address)

interface TlsNames {
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly name: string
}

function addTls(vault: PlainMap, settings: Settings, names: TlsNames, context: Context): void {
  const add = (ours: string, theirs: string) => {
    const path = settings.text(theirs)
    if (path !== undefined && path !== '') vault[ours] = absolutePath(path, vault, ours, context)
  }
  add('caFile', names.ca)
  add('clientCertFile', names.cert)
  add('clientKeyFile', names.key)
  const serverName = settings.text(names.name)
  if (serverName !== undefined && serverName !== '') vault.serverName = serverName
}

function addMethod(vault: PlainMap, method: Settings, context: Context): void {
  const { draft } = context
  const kind = (method.text('type') ?? method.labels[0] ?? '').toLowerCase()
  const mount = method
    .text('mount_path')
    ?.replace(/^auth\//, '')
    .replace(/\/$/, '')
  const namespace = namespaceIn(method)
  if (namespace !== undefined && vault.namespace === undefined) vault.namespace = namespace
  else if (namespace !== undefined && namespace !== vault.namespace)
    draft.lose({
      what: 'auto_auth.method.namespace',
      line: method.lineOf('namespace'),
      why: `certferry logs in and reads in one namespace, vault.namespace; move the role to ${String(vault.namespace)}`,
    })
  const config = method.block('config')
  const translate = METHODS[kind]
  if (translate && config) {
    const auth: PlainMap = { kind: KINDS[kind] ?? kind }
    if (mount !== undefined && mount !== auth.kind) auth.mount = mount
    translate(auth, config, { vault, context })
    vault.auth = auth
    settleRest(config, 'auto_auth.method.config', { lost: METHOD_LOST, covered: METHOD_COVERED }, context)
  } else
    draft.lose({
      what: `auto_auth.method "${kind}"`,
      line: method.line,
      why: translate
        ? 'has no config'
        : `there is no such method in certferry; choose one of ${[...new Set(Object.keys(METHODS))].join(', ')}, or have ${context.tool} keep a token in a file and read that (kind token, tokenFile)`,
    })
  settleRest(
    method,
    'auto_auth.method',
    {
      lost: { wrap_ttl: 'the token of the login stays in certferry, unwrapped' },
      covered: { min_backoff: BACKOFF, max_backoff: BACKOFF, exit_on_err: BACKOFF },
    },
    context,
  )
}

const BACKOFF = 'certferry logs in again by itself, with growing pauses, and says why not; it does not end over it'
const POLLED = 'the file is read anew for each login'
const METHOD_COVERED: Notes = {
  jwt_read_period: POLLED,
  password_read_period: POLLED,
  reload: 'certificate and key are read anew for each login',
  reload_period: 'certificate and key are read anew for each login',
  credential_poll_interval: 'credentials are read anew for each login',
  remove_jwt_follows_symlinks: 'no file is removed',
  remove_password_follows_symlinks: 'no file is removed',
}
const METHOD_LOST: Notes = {
  object_id: 'only a client_id names an identity; write clientId',
  scope: 'has no equivalent; resource is the audience of the token',
  authenticate_from_environment:
    'certferry shows the identity of the machine; with a workload identity use the method jwt',
  credentials: 'certferry shows the identity of the machine; it reads no key of a service account',
  project: 'certferry asks the metadata service of the machine, which knows the project',
  nonce: 'of the login as an EC2 instance, which certferry does not have; use the role with IAM',
  jwt_exp: 'Vault decides by the role',
}

interface Target {
  readonly vault: PlainMap
  readonly context: Context
}

/** Kinds of Vault Agent that have another name here. */
const KINDS: Readonly<Record<string, string>> = { token_file: 'token' }

type Translate = (auth: PlainMap, config: Settings, target: Target) => void

const file = (auth: PlainMap, name: string, path: string | undefined, { context }: Target) => {
  if (path !== undefined) auth[name] = absolutePath(path, auth, name, context)
}

/** Vault Agent removes some credentials once they are read, unless told otherwise. */
const stays = (auth: PlainMap, name: string, isRemoved: boolean, { context }: Target) => {
  if (isRemoved)
    context.draft.remark(
      auth,
      name,
      `${context.tool} removed this file once it had read it; certferry leaves it, to log in again after a restart.`,
    )
}

const METHODS: Readonly<Record<string, Translate>> = {
  kubernetes: (auth, config, target) => {
    Object.assign(auth, given({ role: config.text('role') }))
    file(auth, 'tokenFile', config.text('token_path'), target)
  },
  approle: (auth, config, target) => {
    file(auth, 'roleIdFile', config.text('role_id_file_path'), target)
    file(auth, 'secretIdFile', config.text('secret_id_file_path'), target)
    const removes = config.flag('remove_secret_id_file_after_reading') ?? true
    if (auth.secretIdFile !== undefined) stays(auth, 'secretIdFile', removes, target)
    if (config.text('secret_id_response_wrapping_path') === undefined) return
    auth.secretIdWrapped = true
    target.context.draft.remark(
      auth,
      'secretIdWrapped',
      'A token that wraps anything but a secret_id of this mount, or was unwrapped by somebody else, is refused and reported.',
    )
  },
  jwt: (auth, config, target) => {
    Object.assign(auth, given({ role: config.text('role') }))
    file(auth, 'tokenFile', config.text('path'), target)
    stays(auth, 'tokenFile', config.flag('remove_jwt_after_reading') ?? true, target)
  },
  cert: (auth, config, { vault, context }) => {
    Object.assign(auth, given({ name: config.text('name') }))
    const own: PlainMap = {}
    addTls(own, config, { ca: 'ca_cert', cert: 'client_cert', key: 'client_key', name: '' }, context)
    const differing = Object.keys(own).filter((name) => vault[name] !== undefined && vault[name] !== own[name])
    if (differing.length > 0)
      context.draft.lose({
        what: 'auto_auth.method.config',
        line: config.line,
        why: `${differing.join(', ')} of the login differ from those of vault; certferry has one connection for both, with those of the login`,
      })
    Object.assign(vault, own)
  },
  token_file: (auth, config, target) => file(auth, 'tokenFile', config.text('token_file_path'), target),
  aws: (auth, config, { context }) => {
    const type = config.text('type') ?? 'iam'
    const keys = ['access_key', 'secret_key', 'session_token'].filter((name) => config.text(name) !== undefined)
    Object.assign(
      auth,
      given({ role: config.text('role'), serverId: config.text('header_value'), region: config.text('region') }),
    )
    if (type !== 'iam')
      context.draft.lose({
        what: 'auto_auth.method.config.type',
        line: config.lineOf('type'),
        why: `certferry logs in by IAM, not as ${type}; the role in Vault has to be of auth_type iam`,
      })
    if (keys.length > 0)
      context.draft.lose({
        what: `auto_auth.method.config.${keys.join(', ')}`,
        line: config.lineOf(keys[0] ?? ''),
        why: 'keys are not copied; give them in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or use the role of the machine',
      })
  },
  azure: (auth, config) => {
    Object.assign(
      auth,
      given({ role: config.text('role'), resource: config.text('resource'), clientId: config.text('client_id') }),
    )
  },
  gcp: (auth, config, { context }) => {
    const type = config.text('type') ?? 'gce'
    const account = config.text('service_account')
    const isKnown = account !== undefined && /^[\w.@-]+$/.test(account)
    if (account !== undefined && !isKnown)
      context.draft.lose({
        what: 'auto_auth.method.config.service_account',
        line: config.lineOf('service_account'),
        why: 'is no e-mail address of a service account of this machine',
      })
    Object.assign(auth, given({ role: config.text('role'), serviceAccount: isKnown ? account : undefined }))
    if (type !== 'gce')
      context.draft.remark(
        auth,
        'role',
        `Vault Agent logged in as type ${type}, with a JWT that the IAM API signed; certferry shows the identity of the machine, which a role of type iam takes with allow_gce_inference.`,
      )
  },
  ldap: (auth, config, target) => {
    Object.assign(auth, given({ username: config.text('username') }))
    file(auth, 'passwordFile', config.text('password_file_path'), target)
    stays(auth, 'passwordFile', config.flag('remove_password_after_reading') ?? true, target)
  },
}

/** One file; encryption of the token for its reader is not among what certferry does. */
function addSink(vault: PlainMap, sink: Settings, context: Context): void {
  const { draft } = context
  const config = sink.block('config')
  const path = config?.text('path')
  const what = `auto_auth.sink ${path ?? ''}`.trim()
  const wrapTtl = sink.duration('wrap_ttl')
  const kind = (sink.text('type') ?? sink.labels[0] ?? '').toLowerCase()
  if (vault.tokenSink !== undefined || path === undefined || kind !== 'file') {
    draft.lose({
      what,
      line: sink.line,
      why: 'the token goes to one file at most, vault.tokenSink; have its readers share that',
    })
    return
  }
  const tokenSink: PlainMap = {}
  tokenSink.file = absolutePath(path, tokenSink, 'file', context)
  const mode = config?.mode('mode')
  const bits = Number.parseInt(mode ?? '0640', 8)
  Object.assign(tokenSink, { mode: ((bits & 0o640) | 0o400).toString(8).padStart(4, '0') })
  if ((bits & ~0o640) !== 0)
    draft.lose({
      what: `${what}: mode`,
      line: sink.line,
      why: `${mode} lets others read the token; certferry gives ${tokenSink.mode}`,
    })
  for (const [theirs, ours] of [
    ['owner', 'uid'],
    ['group', 'gid'],
  ] as const) {
    const id = config?.text(theirs)
    if (id === undefined || id === '' || id === '-1') continue
    if (/^\d+$/.test(id)) tokenSink[ours] = Number(id)
    else
      draft.lose({
        what: `${what}: ${theirs}`,
        line: sink.line,
        why: `"${id}" is a name; write its number as ${ours} of vault.tokenSink`,
      })
  }
  if (wrapTtl !== undefined) tokenSink.wrapTtl = wrapTtl
  draft.remark(tokenSink, 'file', 'The token is written without a line end, and anew after each login.')
  vault.tokenSink = tokenSink
  const ENCRYPTED = 'certferry does not encrypt the token for its reader; wrapTtl gives it once'
  if (config) settleRest(config, 'auto_auth.sink.config', {}, context)
  settleRest(
    sink,
    'auto_auth.sink',
    { lost: { dh_type: ENCRYPTED, dh_path: ENCRYPTED, derive_key: ENCRYPTED, aad: ENCRYPTED, aad_env_var: ENCRYPTED } },
    context,
  )
}

/** The token of consul-template is never copied into the config. */
function consulTemplateAuth(server: Settings, context: Context): PlainMap | undefined {
  const { draft } = context
  const role = server.text('k8s_auth_role_name')
  const tokenFile = server.text('vault_agent_token_file')
  const isWrapped = server.flag('unwrap_token') === true
  if (isWrapped && !tokenFile)
    draft.lose({
      what: 'vault.unwrap_token',
      line: server.lineOf('unwrap_token'),
      why: 'certferry unwraps a token that a file holds; write it there, and auth: { kind: token, tokenFile: …, wrapped: true }',
    })
  const token = server.text('token')
  if (role !== undefined && role !== '') {
    const mount = server.text('k8s_service_mount_path')
    const auth: PlainMap = { kind: 'kubernetes', ...(mount !== undefined && mount !== 'kubernetes' && { mount }), role }
    file(auth, 'tokenFile', server.text('k8s_service_account_token_path'), { vault: {}, context })
    if (server.text('k8s_service_account_token') !== undefined)
      draft.lose({
        what: 'vault.k8s_service_account_token',
        line: server.lineOf('k8s_service_account_token'),
        why: 'is not copied; certferry reads the token from a file (tokenFile)',
      })
    return auth
  }
  if (tokenFile !== undefined && tokenFile !== '') {
    const auth: PlainMap = { kind: 'token' }
    file(auth, 'tokenFile', tokenFile, { vault: {}, context })
    if (isWrapped) auth.wrapped = true
    return auth
  }
  if (token === undefined || token === '') return undefined
  const auth: PlainMap = { kind: 'token', token: reference('VAULT_TOKEN') }
  draft.remark(
    auth,
    'token',
    'The token is not copied from the file: give it in the environment, or use an auth method, so that certferry can log in again.',
  )
  return auth
}
