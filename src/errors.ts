import { inspect } from 'node:util'

/**
 * How a failure is tried again (`core/backoff.ts` gives each class its base and cap):
 * `transient` the network or a busy Vault; `auth` a login; `config` needs a person; `local` disk, reload or verify,
 * Vault is not asked; `never` cannot get better by itself.
 */
export type RetryClass = 'transient' | 'auth' | 'config' | 'local' | 'never'

interface ErrorKind {
  readonly retry: RetryClass
  /** Exit code where this error ends the process: 64 usage, 69 no certificate, 70 bug, 78 config. */
  readonly exit: 64 | 69 | 70 | 78
  /** What the reader can do about it. */
  readonly hint: string
}

/** Every failure has one row here; `docs/errors.md` is generated from it. The metric label `reason` is the code in lower case. */
export const ERRORS = {
  // Asking Vault
  VAULT_UNREACHABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check vault.address, the network path and that Vault is running.',
  },
  VAULT_DNS: { retry: 'transient', exit: 69, hint: 'Check the host name in vault.address and the resolver.' },
  VAULT_TLS: {
    retry: 'transient',
    exit: 69,
    hint: 'Check vault.caFile (VAULT_CACERT), the name and the validity of the certificate that Vault serves.',
  },
  VAULT_CLIENT_CERT: {
    retry: 'config',
    exit: 69,
    hint: 'Check vault.clientCertFile and vault.clientKeyFile: both readable, matching, not expired.',
  },
  VAULT_TIMEOUT: {
    retry: 'transient',
    exit: 69,
    hint: 'Vault did not answer in time; check its load and the network path.',
  },
  VAULT_SEALED: { retry: 'transient', exit: 69, hint: 'Unseal Vault.' },
  VAULT_UNUSABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'This Vault node is not initialised, or is a disaster-recovery secondary; point vault.address at an active cluster.',
  },
  VAULT_5XX: { retry: 'transient', exit: 69, hint: "Look into Vault's server log." },
  VAULT_NOT_REPLICATED: {
    retry: 'transient',
    exit: 69,
    hint: 'The node lags behind the leader; it is asked again shortly.',
  },
  VAULT_CIRCUIT_OPEN: {
    retry: 'transient',
    exit: 69,
    hint: 'Vault failed repeatedly at connection level; it is left alone for a moment.',
  },
  RATE_LIMITED: {
    retry: 'transient',
    exit: 69,
    hint: 'A Vault rate-limit or lease-count quota is used up; raise it or spread the load.',
  },
  REDIRECT_REFUSED: {
    retry: 'config',
    exit: 69,
    hint: 'Vault redirected to a host which is not in vault.redirectHosts, or not by https; list the host, or use the address of the active node.',
  },
  BAD_RESPONSE: {
    retry: 'transient',
    exit: 69,
    hint: 'The answer is not what the API of the server documents; check the address, and for a proxy in between.',
  },
  PERMISSION_DENIED: {
    retry: 'config',
    exit: 69,
    hint: 'Check the policies of this Vault token or role: the path needs the capability "update", or "read" where the message says GET.',
  },
  ROLE_MISSING: { retry: 'config', exit: 69, hint: 'Create the PKI role, or correct source.role.' },
  MOUNT_MISSING: {
    retry: 'config',
    exit: 69,
    hint: 'Enable the secrets engine at that path, or correct mount and path in the config.',
  },
  ISSUER_MISSING: {
    retry: 'config',
    exit: 69,
    hint: 'Set up an issuer in that mount, or correct source.issuerRef.',
  },
  REQUEST_REJECTED: {
    retry: 'config',
    exit: 69,
    hint: 'Vault refused the request as it stands; compare it with what the role or the key allows: names, max_ttl, allowed_domains, allow_*.',
  },
  AUTH_SOURCE: {
    retry: 'auth',
    exit: 69,
    hint: "The file or variable that holds the credential is missing, empty or unreadable. A pod gets it from a projected volume with a serviceAccountToken whose audience is Vault's; for a cloud, see that its metadata service or variables are there.",
  },
  AUTH_FAILED: {
    retry: 'auth',
    exit: 69,
    hint: 'Vault refused the login; check the auth mount, the role and the credential: what the role binds (service account, namespace, audience) must be what a JWT says, and for kubernetes Vault must be allowed to create tokenreviews.',
  },
  AUTH_PERMANENT: { retry: 'config', exit: 69, hint: 'This credential is used up or expired; deliver a new one.' },
  WRAP_REUSED: {
    retry: 'config',
    exit: 69,
    hint: 'The wrapping token was already used or has expired. Unless you unwrapped it yourself, treat this as a security incident: revoke the secret_id and deliver a new one.',
  },
  SECRET_MISSING: {
    retry: 'config',
    exit: 69,
    hint: 'Write a secret to that path, or correct the path: of a key-value engine without mount and without "data/".',
  },
  SECRET_DELETED: {
    retry: 'config',
    exit: 69,
    hint: 'Undelete that version (vault kv undelete), write a new one, or name another with version.',
  },
  SECRET_DESTROYED: {
    retry: 'config',
    exit: 69,
    hint: 'A destroyed version cannot come back: write a new one, or name another with version.',
  },
  LEASE_GONE: {
    retry: 'transient',
    exit: 69,
    hint: 'The lease was revoked, has ended or cannot be renewed; another one is asked for.',
  },
  SPIFFE_UNREACHABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check that the agent runs, that source.socket is its socket, and that this process may connect to it.',
  },
  SPIFFE_DENIED: {
    retry: 'transient',
    exit: 69,
    hint: 'Register an entry whose selectors match this process; with SPIRE: spire-server entry show. A new entry takes a few seconds to arrive.',
  },
  SPIFFE_SVID_MISSING: {
    retry: 'config',
    exit: 69,
    hint: 'Correct source.svid or source.hint, or register that identity for this process.',
  },
  // Asking an ACME server
  ACME_UNREACHABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check source.directory, the network path to it, and the status page of the CA.',
  },
  ACME_TLS: {
    retry: 'transient',
    exit: 69,
    hint: 'Check source.caFile: it names the CAs of a private ACME server itself.',
  },
  ACME_TIMEOUT: {
    retry: 'transient',
    exit: 69,
    hint: 'The CA or its look at the challenge took longer than source.timeout; raise it, or see what the CA says of the order.',
  },
  ACME_RATE_LIMITED: {
    retry: 'config',
    exit: 69,
    hint: 'The CA sets a limit; it is asked again when it says so. Rehearse with "certferry once --dry-run", which uses its staging directory.',
  },
  ACME_ACCOUNT: {
    retry: 'config',
    exit: 69,
    hint: 'Check source.account: the key file, termsOfServiceAgreed, contact, and externalAccountBinding where the CA asks for it.',
  },
  ACME_ORDER_INVALID: {
    retry: 'config',
    exit: 69,
    hint: 'The CA refuses these names, this profile or this key; the message has its reason.',
  },
  ACME_CHALLENGE_FAILED: {
    retry: 'config',
    exit: 69,
    hint: 'The CA must reach what answers the challenge: port 80 or 443 of each name, or its TXT record. "certferry once --dry-run" tries again at no cost.',
  },
  ACME_CHALLENGE_SETUP: {
    retry: 'config',
    exit: 69,
    hint: 'The answer to the challenge could not be put in place; the CA was not asked to look for it. See docs/acme.md.',
  },
  ACME_HOOK_TIMEOUT: {
    retry: 'config',
    exit: 69,
    hint: 'The DNS hook hung and was killed with all it started; run it by hand, or raise challenge.exec.timeout.',
  },
  // Trust and revocation
  TRUST_INVALID: {
    retry: 'config',
    exit: 69,
    hint: 'Check trust.anchors: each must name a CA certificate that is valid now.',
  },
  TRUST_PENDING: {
    retry: 'transient',
    exit: 69,
    hint: 'The certificate waits until peers trust its CA: see the trust that the message names; nothing is issued again.',
  },
  CRL_INVALID: {
    retry: 'transient',
    exit: 69,
    hint: 'Check trust.crls: a list must be signed by a CA of this trust, not have ended, and not be older than the one in service; a delta needs the complete list that it builds on.',
  },
  CRL_UNREACHABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check the address in trust.crls and the network path; the list in service holds until its next update.',
  },
  BUDGET_SPENT: {
    retry: 'local',
    exit: 69,
    hint: 'Certificates or credentials were issued many times in a short while, or asked for without an answer, so the next one has to wait; find out why, or rotate by hand with "certferry rotate".',
  },

  // Asking the Kubernetes API server
  KUBERNETES_UNREACHABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check that the API server answers, the network path to it (a NetworkPolicy may close it), kubernetes.apiServer and kubernetes.caFile.',
  },
  KUBERNETES_UNAUTHORIZED: {
    retry: 'auth',
    exit: 69,
    hint: 'Check kubernetes.tokenFile: a token of a service account that exists, for the audience of the API server; see automountServiceAccountToken of the pod.',
  },
  KUBERNETES_DENIED: {
    retry: 'config',
    exit: 69,
    hint: "Add the rule that the message names to a Role of the pod's service account. Where the rule is there, an admission webhook or a quota said no.",
  },
  KUBERNETES_NOT_FOUND: {
    retry: 'config',
    exit: 69,
    hint: 'Create the object, or correct its name; see that kubernetes.namespace and kubernetes.pod name this pod.',
  },
  KUBERNETES_CONFLICT: {
    retry: 'transient',
    exit: 69,
    hint: 'Somebody else changed the object at the same time; it is looked at again shortly.',
  },
  KUBERNETES_INVALID: {
    retry: 'config',
    exit: 69,
    hint: 'The API server refused the request as it stands, or its answer is not as documented; check its version, and for a proxy in between.',
  },

  // Asking an https address for a certificate
  URL_UNREACHABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check source.url, the network path and the server, and that caFile holds the CA of its certificate.',
  },
  URL_REFUSED: {
    retry: 'config',
    exit: 69,
    hint: 'Check source.url, and that tokenFile, headerFiles or the client certificate may read what is there.',
  },
  URL_CREDENTIALS: {
    retry: 'config',
    exit: 69,
    hint: 'Check caFile, clientCertFile, clientKeyFile, tokenFile and headerFiles of the source: readable, matching, not expired, accepted by the server.',
  },

  // What was received
  KEY_MISMATCH: {
    retry: 'transient',
    exit: 69,
    hint: 'The certificate does not belong to the key that was sent; suspect a proxy or a cache that mixes answers.',
  },
  INPUT_MISSING: {
    retry: 'transient',
    exit: 69,
    hint: 'Check the path and who may read it; where somebody else is still to write it, it is taken up as soon as it is there.',
  },
  INPUT_INCOMPLETE: {
    retry: 'transient',
    exit: 69,
    hint: 'Whoever writes the certificate and its key may not be done yet: they are looked at again shortly, and what is in service stays. Where it lasts, put a certificate and the key that belongs to it there.',
  },
  INPUT_INVALID: {
    retry: 'config',
    exit: 69,
    hint: 'Put there what the message names, or correct the options of the source; what is in service stays meanwhile.',
  },
  KEY_ENCRYPTED: {
    retry: 'config',
    exit: 69,
    hint: 'Give passwordFile, a file whose first line is the password of the private key, or mend what is in it.',
  },
  PKCS12_INVALID: {
    retry: 'config',
    exit: 69,
    hint: 'Give the password that the PKCS#12 file was made with, or make it anew: openssl pkcs12 -export with OpenSSL 3 uses algorithms that are read.',
  },
  STALE_RESPONSE: {
    retry: 'transient',
    exit: 69,
    hint: 'The answer repeats a certificate that is in service, or that was revoked: suspect a caching proxy; where the source holds what others write, put a new one there.',
  },
  OCSP_UNAVAILABLE: {
    retry: 'transient',
    exit: 69,
    hint: 'Check the OCSP responder of the certificate, or revocation.ocspUrl; revocation.stapleRequired: false does not wait for it.',
  },
  OCSP_INVALID: {
    retry: 'transient',
    exit: 69,
    hint: 'The responder must be that of the issuer, and its clock and ours right; check revocation.ocspUrl.',
  },
  REVOCATION_UNKNOWN: {
    retry: 'transient',
    exit: 69,
    hint: 'Check revocation.check and the URLs for OCSP and CRL that the certificate names; until somebody can say, it counts as good.',
  },
  CHAIN_INVALID: {
    retry: 'config',
    exit: 69,
    hint: 'Give the missing root with check.trustFile (or caFile of the source, where it has that), have the source send the full chain, or set check.chain to lenient.',
  },
  NAMES_MISMATCH: {
    retry: 'config',
    exit: 69,
    hint: 'The names issued differ from those asked for; check use_csr_sans, use_csr_common_name and the allowed names of the role.',
  },
  POLICY_REJECT: {
    retry: 'config',
    exit: 69,
    hint: 'The certificate is weaker than certferry accepts, or is a CA; correct the role.',
  },
  NOT_YET_VALID: {
    retry: 'local',
    exit: 69,
    hint: 'The clock here and the clock of the issuer differ; it is delivered once valid.',
  },
  CERTIFICATE_EXPIRED: {
    retry: 'transient',
    exit: 69,
    hint: 'The certificate is past its notAfter; check the clock of this machine and of the issuer, or where a source holds it, put a new one there.',
  },
  TTL_TOO_SHORT: { retry: 'config', exit: 69, hint: 'Raise max_ttl of the role, or lower check.minTtl.' },
  CA_EXPIRING: {
    retry: 'config',
    exit: 69,
    hint: 'The issuing CA expires before the certificate; renew the CA, or ask for a shorter ttl.',
  },
  FIELD_MISSING: {
    retry: 'config',
    exit: 69,
    hint: 'Correct the path in the config, or write that field in Vault; the message names the fields that are there.',
  },
  TEMPLATE_INVALID: {
    retry: 'config',
    exit: 78,
    hint: 'Correct the template at the line and column that the message names; docs/templates.md has every tag and filter.',
  },
  TEMPLATE_FAILED: {
    retry: 'config',
    exit: 69,
    hint: 'Correct the template, or the secret in Vault; what was written before stays as it is.',
  },
  VALUE_UNWRITABLE: {
    retry: 'config',
    exit: 69,
    hint: 'Write this entry in a format that can carry it: json carries everything, a template can encode it (base64_encode).',
  },

  // On disk
  DISK_FULL: { retry: 'local', exit: 69, hint: 'Free space or inodes on the volume.' },
  VOLUME_UNAVAILABLE: {
    retry: 'local',
    exit: 69,
    hint: 'Check that the directory exists, is mounted read-write and is writable for this user.',
  },
  VOLUME_REPLACED: {
    retry: 'local',
    exit: 69,
    hint: 'The directory was moved or replaced while certferry ran; put it back, or restart certferry.',
  },
  VOLUME_UNSAFE: {
    retry: 'local',
    exit: 78,
    hint: 'Give certferry a directory of its own: owned by its user, not writable by others.',
  },
  WRITE_FAILED: {
    retry: 'local',
    exit: 69,
    hint: 'The file system reported an error; check the kernel log and the volume.',
  },
  OWNER_DENIED: {
    retry: 'local',
    exit: 78,
    hint: 'Only root (CAP_CHOWN) gives files away, and a group must be one of its own: drop uid and gid from the output, or run certferry as that user.',
  },
  ACL_DENIED: {
    retry: 'local',
    exit: 78,
    hint: 'Install setfacl (package acl), give users and groups that exist, and a file system that holds POSIX ACLs; or drop acl from the output.',
  },
  PASSWORD_FILE: {
    retry: 'local',
    exit: 78,
    hint: 'Put the password into the file in one line of ASCII, readable by certferry and not by everybody: chmod 0400, or 0440 with a group of its own.',
  },
  KEY_FORMAT: {
    retry: 'config',
    exit: 78,
    hint: 'pkcs1 is for RSA keys, sec1 for elliptic curve keys: choose keyFormat: pkcs8, or another key.algorithm.',
  },
  FOREIGN_OBJECT: {
    retry: 'local',
    exit: 69,
    hint: 'Something other than a file of certferry stands at that path; move it away.',
  },
  LOCK_HELD: {
    retry: 'local',
    exit: 69,
    hint: 'Another certferry writes to this directory; this one takes over when that one ends.',
  },
  TAMPERED: {
    retry: 'local',
    exit: 69,
    hint: 'Files were changed by someone else; they are restored. Find out who writes to this directory.',
  },

  // Telling the target, asking the target
  TARGET_CONFIG_BROKEN: {
    retry: 'local',
    exit: 69,
    hint: "The target's own configuration test fails; run it by hand and mend what it names.",
  },
  RELOAD_TARGET_MISSING: {
    retry: 'local',
    exit: 69,
    hint: 'Start the target, or correct the pidFile, process, command or url of reload; in Kubernetes a pid file or process name takes shareProcessNamespace: true, or certferry reload-helper beside the target.',
  },
  RELOAD_WRONG_PROCESS: {
    retry: 'local',
    exit: 69,
    hint: 'The pid does not name the target; remove the stale pid file, or correct reload.process.',
  },
  RELOAD_EPERM: { retry: 'local', exit: 69, hint: 'Run certferry as the user of the target, or give it CAP_KILL.' },
  RELOAD_FAILED: { retry: 'local', exit: 69, hint: 'The reload command or request failed; its output says why.' },
  RELOAD_TIMEOUT: {
    retry: 'local',
    exit: 69,
    hint: 'The reload did not finish in time; raise reload.timeout, or find what it waits for.',
  },
  RELOAD_DEFERRED: {
    retry: 'local',
    exit: 69,
    hint: 'The workload was restarted a short while ago; this pod asks again once minInterval has passed. See why certificates come so fast, or lower minInterval.',
  },
  RELOAD_BLOCKED: {
    retry: 'local',
    exit: 69,
    hint: 'A restart would not replace this pod: resume the Deployment, use the updateStrategy RollingUpdate without a partition, or run the pod by a Deployment, StatefulSet or DaemonSet.',
  },
  RELOAD_NOT_EFFECTIVE: {
    retry: 'local',
    exit: 69,
    hint: 'The target still serves the old certificate after the reload; look into its error log, and see that its config names the files of this directory.',
  },
  PROBE_MISMATCH: {
    retry: 'local',
    exit: 69,
    hint: 'The target serves some other certificate; check verify.address, verify.serverName and which server block answers.',
  },
  STAPLE_NOT_SERVED: {
    retry: 'local',
    exit: 69,
    hint: 'Let the target staple the file: ssl_stapling_file of nginx, NAME.pem.ocsp beside NAME.pem for HAProxy; or leave staple out of verify.',
  },
  CHAIN_NOT_SERVED: {
    retry: 'local',
    exit: 69,
    hint: 'The target does not send the intermediate certificates; point it at tls.crt, which holds the full chain.',
  },
  TARGET_DOWN: {
    retry: 'local',
    exit: 69,
    hint: "The target does not accept connections; look into the target's log.",
  },
  ROLLBACK_FAILED: {
    retry: 'local',
    exit: 69,
    hint: 'Neither the new nor the previous certificate could be brought into service; look at the target.',
  },

  // What the user gave
  USAGE: { retry: 'never', exit: 64, hint: 'See certferry --help.' },
  CONFIG_INVALID: {
    retry: 'never',
    exit: 78,
    hint: 'Correct what is named above; "certferry validate" checks the file without running anything.',
  },
  CONFIG_UNREADABLE: { retry: 'never', exit: 78, hint: 'Check the path and its permissions.' },
  CONFIG_UNSAFE: {
    retry: 'never',
    exit: 78,
    hint: 'Others could change what certferry runs and where it writes: chmod go-w the file.',
  },
  NODE_UNSAFE: {
    retry: 'never',
    exit: 78,
    hint: 'Unset it, in the environment (NODE_OPTIONS) or on the command line: what is written so holds keys or tokens.',
  },
  ADDRESS_IN_USE: {
    retry: 'never',
    exit: 78,
    hint: 'If it is another certferry with this config, stop that one; otherwise change admin.listen or admin.socket.',
  },
  ADMIN_TLS: {
    retry: 'local',
    exit: 78,
    hint: 'Check admin.tls: certFile and keyFile must be readable PEM files that belong together, and so must clientCaFile.',
  },
  INJECTOR_TLS: {
    retry: 'local',
    exit: 69,
    hint: 'The webhook serves the files of injector.certificate; see what its rotation says. They are looked at again shortly.',
  },
  SIDECAR_UNREACHABLE: {
    retry: 'never',
    exit: 69,
    hint: 'Is "certferry run" running with this config, and may this user open its control socket?',
  },
  TIMED_OUT: {
    retry: 'never',
    exit: 69,
    hint: 'Mend what the message names, or raise --timeout where it only takes long.',
  },
  AUDIT_BROKEN: {
    retry: 'never',
    exit: 69,
    hint: 'The audit log was changed after it was written; compare it with a copy kept elsewhere.',
  },
  STOPPED: {
    retry: 'never',
    exit: 69,
    hint: 'The sidecar stopped, or the config of this certificate changed; ask again once it runs.',
  },
  BAD_REVIEW: {
    retry: 'never',
    exit: 69,
    hint: 'Only the API server of Kubernetes should call the webhook, with an AdmissionReview of admission.k8s.io/v1.',
  },
  INJECTION_REFUSED: {
    retry: 'config',
    exit: 78,
    hint: 'Correct the annotations or the pod as the message says; docs/kubernetes.md lists every annotation.',
  },
  DEMO_FAILED: {
    retry: 'never',
    exit: 69,
    hint: 'The demo promises that no handshake fails; please report this with the line above.',
  },
  BUG: { retry: 'config', exit: 70, hint: 'This is a defect of certferry; please report it with the stack.' },
} as const satisfies Record<string, ErrorKind>

export type ErrorCode = keyof typeof ERRORS

interface SidecarErrorOptions {
  readonly cause?: unknown
  readonly retryAfterMs?: number | undefined
  readonly mayHaveIssued?: boolean
}

/** A failure with a code from {@link ERRORS}. Callers branch on `code`; the message names what failed and with which value, never a secret. */
export class SidecarError extends Error {
  override readonly name = 'SidecarError'
  readonly code: ErrorCode
  /** Lower bound for the next try in ms, where the other side asked for one (Retry-After). */
  readonly retryAfterMs: number | undefined
  /** A certificate may have been issued all the same: the answer was lost, or is of no use. */
  readonly mayHaveIssued: boolean

  constructor(code: ErrorCode, message: string, options: SidecarErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.retryAfterMs = options.retryAfterMs
    this.mayHaveIssued = options.mayHaveIssued ?? false
  }

  get kind(): ErrorKind {
    return ERRORS[this.code]
  }

  get reason(): string {
    return reasonOf(this.code)
  }
}

/** The same, with the note that a certificate may have been issued. What is no SidecarError, such as the reason of a stop, stays as it is. */
export function mayHaveIssued(thrown: unknown): unknown {
  if (!(thrown instanceof SidecarError)) return thrown
  const { code, message, cause, retryAfterMs } = thrown
  return Object.assign(new SidecarError(code, message, { cause, retryAfterMs, mayHaveIssued: true }), {
    stack: thrown.stack,
  })
}

export const reasonOf = (code: ErrorCode): string => code.toLowerCase()

/** Any thrown value as a SidecarError; what is not one yet is a bug, with the stack kept as the cause. */
export function toSidecarError(error: unknown): SidecarError {
  if (error instanceof SidecarError) return error
  const text = error instanceof Error ? error.message : inspect(error)
  return new SidecarError('BUG', `unexpected error: ${text}`, { cause: error })
}

/** The `code` of a Node system error (`ENOENT`, `EPERM`), if it has one. */
export const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
