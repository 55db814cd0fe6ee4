/** One family of series. `docs/metrics.md` is generated from these tables. */
export interface Metric {
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly labels: readonly string[]
  /** Upper bounds in seconds, for histograms. */
  readonly buckets?: readonly number[]
}

export const PREFIX = 'certferry_'

const gauge = (help: string, ...labels: readonly string[]): Metric => ({ type: 'gauge', help, labels })
const counter = (help: string, ...labels: readonly string[]): Metric => ({ type: 'counter', help, labels })
const histogram = (help: string, buckets: readonly number[], ...labels: readonly string[]): Metric => ({
  type: 'histogram',
  help,
  labels,
  buckets,
})

/** Read from the snapshot of each certificate when scraped. Without a value there is no series. */
export const CERTIFICATE_GAUGES = {
  certificate_not_after_timestamp_seconds: gauge('End of validity of the certificate on disk.', 'certificate'),
  certificate_not_before_timestamp_seconds: gauge('Start of validity of the certificate on disk.', 'certificate'),
  issuer_not_after_timestamp_seconds: gauge(
    'End of validity of the CA that ends first, of those that came with the certificate on disk.',
    'certificate',
  ),
  certificate_renewal_timestamp_seconds: gauge('When the certificate is due for renewal.', 'certificate'),
  certificate_phase: gauge(
    '1 for the present phase (PENDING, ACTIVE, DEGRADED, EXPIRED), 0 for the others.',
    'certificate',
    'phase',
  ),
  served_not_after_timestamp_seconds: gauge(
    'End of validity of the certificate that the target was last seen to serve.',
    'certificate',
  ),
  served_matches_disk: gauge(
    '1 when the target was last seen to serve the certificate on disk, 0 when another.',
    'certificate',
  ),
  last_verified_timestamp_seconds: gauge(
    'When the target was last proven to serve the certificate on disk.',
    'certificate',
  ),
  rotation_consecutive_failures: gauge('Failed tries since the last complete success.', 'certificate'),
  issue_budget_left: gauge(
    'Certificates that may still be issued without a person asking; the last two not at once while one is in service.',
    'certificate',
  ),
}

/** Read from the snapshot of each secret when scraped. */
export const SECRET_GAUGES = {
  secret_phase: gauge(
    '1 for the present phase of the secret (PENDING, ACTIVE, DEGRADED, EXPIRED), 0 for the others.',
    'secret',
    'phase',
  ),
  secret_lease_expiry_timestamp_seconds: gauge(
    'End of the lease of the secret that ends first; no series when nothing ends.',
    'secret',
  ),
  secret_last_delivered_timestamp_seconds: gauge('When a change of the secret was delivered last.', 'secret'),
  secret_consecutive_failures: gauge('Failed tries since the last complete success.', 'secret'),
}

/** Read from the snapshot of each trust when scraped. */
export const TRUST_GAUGES = {
  trust_phase: gauge(
    '1 for the present phase of the trust (PENDING, ACTIVE, DEGRADED, EXPIRED), 0 for the others.',
    'trust',
    'phase',
  ),
  ca_not_after_timestamp_seconds: gauge(
    'End of validity of each CA of the trust; state is named, or retiring for one that no source names any more.',
    'trust',
    'subject',
    'state',
  ),
  crl_next_update_timestamp_seconds: gauge(
    'When the next revocation list of each CA is due; after that peers refuse everybody.',
    'trust',
    'issuer',
  ),
  trust_last_published_timestamp_seconds: gauge('When a change of the trust was published last.', 'trust'),
  trust_consecutive_failures: gauge('Failed tries since the last complete success.', 'trust'),
}

const ROTATION_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const VAULT_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** A webhook that takes seconds is one that the API server gives up on. */
const REVIEW_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1]

/** Read from the snapshot of the sidecar when scraped. */
export const SIDECAR_GAUGES = {
  config_last_reload_successful: gauge('1 when the config in the file is in use, 0 when it was rejected.'),
  config_last_reload_success_timestamp_seconds: gauge('When a config was last taken into use.'),
  vault_token_expiry_timestamp_seconds: gauge('When the Vault token in use expires; no series when it does not.'),
}

/** Kept up by events. */
export const EVENT_METRICS = {
  rotation_total: counter(
    'Rotations by result (success, error); reason is the error code in lower case, empty on success.',
    'certificate',
    'result',
    'reason',
  ),
  revocation_checks_total: counter(
    'Times it was asked whether the certificate is revoked, by what came of it (good, revoked, unknown, error).',
    'certificate',
    'result',
  ),
  certificate_revoked_total: counter('Certificates that were found revoked by somebody else.', 'certificate'),
  rotation_duration_seconds: histogram('How long each stage of a rotation took.', ROTATION_BUCKETS, 'stage'),
  reload_total: counter(
    'Reloads of a target by kind of reloader and result (success, error); one reload may serve several certificates.',
    'kind',
    'result',
  ),
  last_reload_successful: gauge(
    '1 when the last reload for this certificate succeeded, 0 when it failed.',
    'certificate',
  ),
  issued_total: counter('Certificates issued.', 'certificate'),
  fallback_total: counter(
    'Certificates that came from a fallback, by its kind, because the source could not deliver.',
    'certificate',
    'source',
  ),
  rollback_total: counter(
    'Returns to the last verified certificate because the target refused a new one.',
    'certificate',
  ),
  secret_delivery_total: counter(
    'Deliveries of a changed secret by result (success, error); reason is the error code in lower case, empty on success.',
    'secret',
    'result',
    'reason',
  ),
  trust_publication_total: counter(
    'Publications of a changed trust by result (success, error); reason is the error code in lower case, empty on success.',
    'trust',
    'result',
    'reason',
  ),
  trust_rollback_total: counter('Returns to the last good trust because the target refused a new one.', 'trust'),
  secret_rollback_total: counter('Returns to the last good values because the target refused new ones.', 'secret'),
  tamper_total: counter('Files that someone else changed and certferry restored.', 'certificate'),
  probe_total: counter(
    'Looks at the target between rotations by result: match, other (serves another certificate), down.',
    'certificate',
    'result',
  ),
  vault_request_duration_seconds: histogram(
    'Requests to Vault by operation and status: the HTTP status, or why there was none.',
    VAULT_BUCKETS,
    'operation',
    'status',
  ),
  vault_clock_skew_seconds: gauge("By how much Vault's clock was ahead of ours in its last answer."),
  vault_token_failure_total: counter('Failed logins and renewals of the Vault token.'),
  wrap_reused_total: counter('Wrapping tokens found already used: a security event.'),
  clock_step_total: counter('Steps of the wall clock.'),
  control_request_total: counter(
    'Requests to change something, by command and result (allowed, denied).',
    'command',
    'result',
  ),
  injector_review_total: counter(
    'Pods that the API server asked the webhook about, by result (injected, unchanged, skipped, denied); of namespaces the first 200 by name, the rest as _other.',
    'namespace',
    'result',
  ),
  injector_review_duration_seconds: histogram('How long the webhook took to answer about a pod.', REVIEW_BUCKETS),
  injector_ca_bundle_update_total: counter(
    'Times that the caBundle of the webhook configuration was put right, by result (success, error).',
    'result',
  ),
  internal_error_total: counter('Defects of certferry met while running.'),
}

/** What the observers know of themselves. */
export const SELF_METRICS = {
  log_dropped_total: counter('Log lines dropped because nobody read them.'),
  audit_lost_total: counter('Audit lines lost because the file could not be written.'),
  build_info: gauge('Always 1; the labels say what runs.', 'version', 'node_version'),
}

/** Read from the process when scraped; named as Prometheus clients name them everywhere, without prefix. */
export const PROCESS_METRICS = {
  process_cpu_seconds_total: counter('User and system CPU time in seconds.'),
  process_resident_memory_bytes: gauge('Resident memory in bytes.'),
  process_start_time_seconds: gauge('Start of the process since the Unix epoch in seconds.'),
  process_open_fds: gauge('Open file descriptors.'),
  nodejs_active_resources: gauge('Timers, handles and requests that keep the event loop busy, by type.', 'type'),
  nodejs_heap_size_used_bytes: gauge('Heap in use in bytes.'),
  nodejs_eventloop_utilization: gauge('Share of time the event loop was busy since the last scrape.'),
}
