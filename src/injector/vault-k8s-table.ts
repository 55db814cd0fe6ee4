/** What becomes of an annotation of vault-k8s: our name for it, or why there is none. */
export interface Equivalent {
  /** Ours, without prefix. */
  readonly becomes?: string
  readonly value?: (value: string) => string
  /** For people; where it is refused, what to write instead. */
  readonly note?: string
  readonly refused?: boolean
  /** Not refused where the pod has one of these of ours. */
  readonly unless?: readonly string[]
}

/** vault-k8s takes what Go takes for a boolean. */
export const flag = (value: string): string =>
  /^(?:1|t|true)$/i.test(value) ? 'true' : /^(?:0|f|false)$/i.test(value) ? 'false' : value

/** https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations. Names with `-<name>` stand for one of each secret. */
export const EQUIVALENTS: Readonly<Record<string, Equivalent>> = {
  'agent-inject': { becomes: 'inject', value: flag },
  'agent-inject-status': { note: 'a pod that vault-k8s has injected is left alone' },
  'agent-inject-secret-<name>': {
    becomes: 'certificate.<name>',
    note: 'where it is a path of PKI, pki/issue/web or pki/sign/web. Other secrets are refused',
  },
  'agent-inject-template-<name>': {
    becomes: 'certificate.<name>',
    note: 'its path and parameters are read. It must print key and certificate, with or without CA, and nothing else: they become one file (output combined)',
  },
  'agent-inject-template-file-<name>': {
    refused: true,
    unless: ['certificate.<name>'],
    note: 'write certferry.io/certificate.<name> instead',
  },
  'agent-inject-default-template': { note: 'certificates are written as PEM' },
  'agent-template-left-delim-<name>': {
    refused: true,
    unless: ['certificate.<name>'],
    note: 'write certferry.io/certificate.<name> instead',
  },
  'agent-template-right-delim-<name>': {
    refused: true,
    unless: ['certificate.<name>'],
    note: 'write certferry.io/certificate.<name> instead',
  },
  'agent-inject-file-<name>': { becomes: 'certificate.<name>', note: 'name of the file' },
  'agent-inject-perms-<name>': { becomes: 'certificate.<name>', note: 'mode of the file' },
  'agent-inject-command-<name>': {
    becomes: 'reload.<name>',
    note: 'where it only sends a signal: pkill -HUP nginx, kill -HUP $(pidof nginx). Others are refused: write certferry.io/reload.<name>',
  },
  'error-on-missing-key-<name>': { note: 'nothing is written unless it is whole' },
  'secret-volume-path': { becomes: 'volume-path', note: '/vault/secrets unless given' },
  'secret-volume-path-<name>': {
    refused: true,
    unless: ['directory.<name>'],
    note: 'write certferry.io/directory.<name>, below volume-path',
  },
  'preserve-secret-case': { note: 'names are taken as they are, in lower case' },
  'agent-inject-containers': { becomes: 'containers' },
  'agent-copy-volume-mounts': {
    refused: true,
    unless: ['extra-secret', 'json-patch'],
    note: 'write certferry.io/extra-secret or json-patch',
  },
  'agent-inject-token': { refused: true, note: 'the token stays in certferry; let the app log in by itself' },
  'agent-image': { note: 'another program; write certferry.io/image' },
  'agent-configmap': {
    refused: true,
    unless: ['config'],
    note: 'write certferry.io/config with a config of certferry',
  },
  'agent-extra-secret': { becomes: 'extra-secret' },
  'agent-init-first': { becomes: 'init-first', value: flag },
  'agent-pre-populate': { note: 'a native sidecar is always there first' },
  'agent-pre-populate-only': { becomes: 'init-only', value: flag },
  'agent-requests-cpu': { note: 'for Vault Agent; write certferry.io/requests-cpu' },
  'agent-requests-mem': { note: 'for Vault Agent; write certferry.io/requests-memory' },
  'agent-requests-ephemeral': { note: 'for Vault Agent; write certferry.io/requests-ephemeral-storage' },
  'agent-limits-cpu': { note: 'for Vault Agent; write certferry.io/limits-cpu' },
  'agent-limits-mem': { note: 'for Vault Agent; write certferry.io/limits-memory' },
  'agent-limits-ephemeral': { note: 'for Vault Agent; write certferry.io/limits-ephemeral-storage' },
  'agent-run-as-user': { becomes: 'run-as-user' },
  'agent-run-as-group': { becomes: 'run-as-group' },
  'agent-run-as-same-user': { becomes: 'run-as-same-user', value: flag },
  'agent-set-security-context': { becomes: 'set-security-context', value: flag },
  'agent-share-process-namespace': { becomes: 'share-process-namespace', value: flag },
  'agent-service-account-token-volume-name': { becomes: 'service-account-token-volume' },
  'agent-revoke-on-shutdown': { note: 'would revoke certificates that are leased to the token' },
  'agent-revoke-grace': { note: 'as agent-revoke-on-shutdown' },
  'agent-enable-quit': { note: 'a native sidecar ends with the app' },
  'agent-cache-enable': { refused: true, note: 'certferry is no proxy; keep Vault Agent for that' },
  'agent-cache-use-auto-auth-token': { note: 'no proxy' },
  'agent-cache-listener-port': { note: 'no proxy' },
  'agent-cache-exit-on-err': { note: 'no proxy' },
  'agent-auto-auth-exit-on-err': { note: 'logs in again, and says why not' },
  'auth-min-backoff': { note: 'backoff is fixed' },
  'auth-max-backoff': { note: 'backoff is fixed' },
  'template-config-exit-on-retry-failure': { note: 'tries on, and keeps what is good' },
  'template-static-secret-render-interval': { note: 'certificates are renewed by their lifetime' },
  'template-lease-renewal-threshold': { note: 'renew.after of the certificate in YAML' },
  'template-max-connections-per-host': { note: 'one connection does' },
  'agent-disable-idle-connections': { note: 'nothing is kept open' },
  'agent-disable-keep-alives': { note: 'nothing is kept open' },
  'agent-telemetry-<name>': { note: 'metrics are at /metrics' },
  'agent-json-patch': { note: 'is for the container of Vault Agent; write certferry.io/json-patch' },
  'agent-init-json-patch': { note: 'is for the container of Vault Agent; write certferry.io/init-json-patch' },
  role: { becomes: 'vault-role' },
  'auth-type': { becomes: 'auth-type' },
  'auth-path': { becomes: 'auth-path' },
  'auth-config-<name>': { refused: true, unless: ['auth-config'], note: 'write certferry.io/auth-config' },
  service: { becomes: 'vault-address' },
  namespace: { becomes: 'vault-namespace' },
  'proxy-address': { refused: true, note: 'certferry speaks to Vault directly' },
  'tls-skip-verify': {
    refused: true,
    unless: ['vault-ca'],
    note: 'certferry does not talk to a Vault it cannot authenticate; write certferry.io/vault-ca',
  },
  'tls-secret': { note: 'for files of ca-cert and the like; write certferry.io/vault-ca, or vault-tls-secret' },
  'tls-server-name': { becomes: 'vault-server-name' },
  'ca-cert': { note: 'a file of tls-secret; write certferry.io/vault-ca, or have it as a default of the injector' },
  'ca-key': { note: 'no use is made of it' },
  'client-cert': { refused: true, unless: ['vault-tls-secret'], note: 'write certferry.io/vault-tls-secret' },
  'client-key': { refused: true, unless: ['vault-tls-secret'], note: 'write certferry.io/vault-tls-secret' },
  'client-max-retries': { note: 'tries on by itself' },
  'client-timeout': { note: 'vault.timeouts of the config' },
  'go-max-procs': { note: 'not a Go program' },
  'log-level': {
    becomes: 'log-level',
    value: (level) => (level === 'trace' ? 'debug' : level === 'err' ? 'error' : level),
  },
  'log-format': { becomes: 'log-format', value: (format) => (format === 'standard' ? 'pretty' : format) },
  'agent-request-namespace': { note: 'of vault-k8s itself' },
}
