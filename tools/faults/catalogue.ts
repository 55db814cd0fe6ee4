/** One way in which the world around certferry fails. */
export interface Fault {
  /** What goes wrong. */
  readonly fault: string
  /** What certferry owes its users then, beyond the baseline that docs/faults.md states. */
  readonly expected: string
  /** Why no test can bring it about here; a row without this has a test that names it. */
  readonly untried?: string
}

/** The parts of the catalogue, by the letter that its rows begin with. */
export const FAMILIES: Readonly<Record<string, string>> = {
  V: 'Vault',
  F: 'File system',
  C: 'Clock',
  P: 'Process',
  R: 'Reload and verification',
  N: 'Network server',
  G: 'Config',
  K: 'Certificate authorities, trust and revocation',
  S: 'Sources besides Vault',
  X: 'Containers and volumes',
}

/** The fault catalogue. A test counts for a row when its name, or that of a suite around it, begins with the id of the row. */
export const FAULTS: Readonly<Record<string, Fault>> = {
  V1: {
    fault: 'Vault is sealed',
    expected: 'Told as such; tried again within seconds, without a new login for each try.',
  },
  V2: {
    fault: 'A standby node redirects to the leader',
    expected: 'One redirect, by https, to an allowed host only; the token goes nowhere else.',
  },
  V3: {
    fault: 'Health answers 429, 472, 473 or 501',
    expected: 'Advice only: no attempt depends on it.',
  },
  V4: { fault: 'A rate-limit or lease quota is used up', expected: 'Retry-After is honoured, with jitter on top.' },
  V5: { fault: 'The node lags behind the leader (412)', expected: 'A few quick tries at the same node, no new login.' },
  V6: { fault: '500, 502 or 504', expected: 'Tried again with growing pauses.' },
  V7: {
    fault: 'Slow headers, slow body, a half-open connection',
    expected: 'Every phase has its own limit; an issuance that may have happened counts against the budget.',
  },
  V8: { fault: 'Reset in the middle, truncated JSON, wrong length', expected: 'Nothing is taken from half an answer.' },
  V9: { fault: 'The name of Vault no longer resolves, or moved', expected: 'Looked up again for each new connection.' },
  V10: {
    fault: "Vault's certificate is expired, of another CA, or of another name",
    expected: 'Never talked to insecurely; a replaced CA file is read for the next connection.',
  },
  V11: {
    fault: 'Our client certificate for Vault is expired',
    expected: 'Told as such; a replaced one needs no restart.',
  },
  V12: { fault: 'The token is revoked between login and issue', expected: 'Exactly one new login and one more try.' },
  V13: {
    fault: 'The token cannot be renewed, or not any longer',
    expected: 'A new login in time, without hammering.',
  },
  V14: {
    fault: 'The secret_id is used up; the wrapping token was used by somebody else',
    expected: 'Told as permanent; the second is a security event.',
  },
  V15: { fault: 'The file with the credential is rotated, empty or gone', expected: 'Read anew for each login.' },
  V16: {
    fault: 'The policy no longer allows it',
    expected: 'Denied after exactly one new login; repaired without a restart.',
  },
  V17: { fault: 'The role or the mount is gone, or another engine is there', expected: 'Named as what is missing.' },
  V18: { fault: 'The role does not allow the name', expected: "Vault's reason is told, bounded and escaped." },
  V19: {
    fault: 'An operator revokes the certificate in service',
    expected: 'Rotated on request; the revoked one never comes back by a rollback.',
  },
  V20: { fault: 'Another issuer becomes the default', expected: 'Accepted when it chains to what is trusted.' },
  V21: { fault: "Vault's tidy removes our certificate", expected: 'No effect.' },
  V22: { fault: 'The certificate belongs to another key', expected: 'Nothing is written.' },
  V23: { fault: 'The chain is incomplete, out of order or foreign', expected: 'Put in order, completed, or refused.' },
  V24: {
    fault: 'Other names, a CA certificate, a weak key or signature',
    expected: 'Refused: nothing weaker than asked for is delivered.',
  },
  V25: { fault: 'Not valid before some time from now', expected: 'Kept, and delivered once valid.' },
  V26: { fault: 'A shorter life than asked for', expected: 'Accepted with a warning, or refused below check.minTtl.' },
  V27: { fault: 'The CA ends before the certificate would', expected: 'Told as CA_EXPIRING.' },
  V28: { fault: '204, null, missing fields, wrong types', expected: 'The field is named, never its value.' },
  V29: { fault: 'A body without end', expected: 'Cut off; memory stays flat.' },
  V30: { fault: 'A page of a proxy, a gzip bomb', expected: 'Refused; the body is not logged.' },
  V31: {
    fault: 'Hostile text: headers in a PEM, NUL, CR, two keys, control characters',
    expected: 'Everything is encoded anew from what was parsed; nothing is passed on.',
  },
  V32: { fault: 'The same certificate again, from a cache', expected: 'Refused; no reload.' },
  V33: {
    fault: 'Vault is away at the first start',
    expected: 'With an empty volume it waits, not ready; with a valid set it is ready at once.',
  },
  V34: { fault: 'Hundreds of sidecars after an outage', expected: 'Their requests are spread.' },

  F1: { fault: 'The disk is full', expected: 'Found before Vault is asked: nothing is issued.' },
  F2: { fault: 'A write that is cut short without an error', expected: 'Never half a file.' },
  F3: { fault: 'No inodes left', expected: 'As F1; going back still works.' },
  F4: { fault: 'Read-only, no permission, stale handle, volume gone', expected: 'No issuance while it lasts.' },
  F5: { fault: 'Two file systems', expected: 'Cannot matter: temporary files lie beside their targets.' },
  F6: { fault: 'A single file is mounted at an output', expected: 'Refused at the start, with what to mount instead.' },
  F7: { fault: 'EIO on fsync', expected: 'That generation is never trusted again.' },
  F8: { fault: 'Killed at any step', expected: 'Old or new, always whole; the next start clears what is left.' },
  F9: { fault: 'Power loss', expected: 'Data before names, names before the commit.' },
  F10: { fault: 'A planted symbolic link', expected: 'Never written through.' },
  F11: { fault: 'The directory is moved away, another put in its place', expected: 'Not written to.' },
  F12: { fault: 'A FIFO, socket, device or directory at a name of ours', expected: 'Named, not opened, not removed.' },
  F13: {
    fault: 'A strange umask, drifted modes or owners',
    expected: 'Modes as configured, drift repaired and counted.',
  },
  F14: { fault: 'Leftovers of a crash', expected: 'Cleared at the start and before each write.' },
  F15: { fault: 'Two sidecars on one volume', expected: 'The second waits, and takes over when the first is gone.' },
  F16: { fault: 'Somebody edits or deletes files', expected: 'Restored, counted, not issued again.' },
  F17: { fault: 'A hard link or an open descriptor to the old key', expected: 'A new inode and a new key each time.' },
  F18: { fault: 'Hostile or clashing names in the config', expected: 'Refused at the start.' },

  C1: { fault: 'The wall clock jumps ahead', expected: 'What is due renews at the next tick.' },
  C2: { fault: 'The wall clock jumps back', expected: 'Nothing is put off: the monotonic clock counts too.' },
  C3: { fault: 'Suspended past the renewal', expected: 'Renews when it wakes up.' },
  C4: { fault: "Our clock and Vault's differ", expected: 'Measured and told.' },
  C5: { fault: 'Delays that timers cannot keep', expected: 'Never a hot loop, never a timer that does not fire.' },
  C6: { fault: 'A life of seconds, or of millennia', expected: 'No overflow, no hot loop.' },

  P1: { fault: 'SIGTERM at any moment', expected: 'Ends within 5 s with 0, nothing half-written.' },
  P2: { fault: 'A burst of SIGHUP', expected: 'One reload running, at most one queued.' },
  P3: { fault: 'SIGUSR1', expected: 'Does not open the inspector.' },
  P4: {
    fault: 'A crash loop',
    expected: 'Issues nothing with a good set on disk, and is bounded by the budget without.',
  },
  P5: { fault: 'Little memory', expected: 'Bounded under floods; a kill is F8.' },
  P6: {
    fault: 'A defect of ours in one certificate',
    expected: 'The others go on; five in a row end the process with 70.',
  },
  P7: { fault: 'A blocked event loop', expected: 'Shows in /livez.' },
  P8: { fault: 'Output closed or stuck, no descriptors left', expected: 'Goes on; what is lost is counted.' },

  R1: { fault: 'The target is not there yet', expected: 'No failure for startupGrace; proven when it comes.' },
  R2: { fault: 'An empty or broken pid file', expected: 'Nobody is signalled.' },
  R3: { fault: 'A stale or reused pid', expected: 'Nobody is signalled.' },
  R4: {
    fault: 'The target lives in another PID namespace',
    expected: 'Nobody is signalled; the hint names shareProcessNamespace.',
  },
  R5: { fault: 'The target belongs to another user', expected: 'Told as such, with what to do.' },
  R6: { fault: 'The reload command hangs, or its grandchild', expected: 'The whole group is ended.' },
  R7: { fault: 'The reload command fails, or floods', expected: 'Its last words are told, redacted.' },
  R8: {
    fault: "The target's own config is broken",
    expected: 'Found by its test before the commit, not blamed on the certificate.',
  },
  R9: { fault: 'The signal is taken, the reload fails', expected: 'Found out by the proof; gone back.' },
  R10: { fault: 'Old and new are both served for a moment', expected: 'Proven only when the old one shows no more.' },
  R11: { fault: 'Old workers linger on long connections', expected: 'Do not hold the proof back.' },
  R12: { fault: 'The target may not read the key', expected: 'Told; the old certificate goes on.' },
  R13: {
    fault: 'The target restarts, or crashes in a loop',
    expected: 'Waited for; gone back once when it fell over after a reload.',
  },
  R14: {
    fault: 'Somebody else reloads in the middle of a swap',
    expected: 'A whole pair with nginx-include; otherwise found and healed.',
  },
  R15: { fault: 'Another virtual host answers', expected: 'Told as a mismatch; nothing is rolled back.' },
  R16: { fault: 'The target wants client certificates', expected: 'The proof works all the same.' },
  R17: { fault: 'A resumed session hides the certificate', expected: 'Probes never resume.' },
  R18: { fault: "HAProxy's runtime API refuses", expected: 'A refused commit is a refused reload.' },
  R19: { fault: "HAProxy's commit is in memory only", expected: 'The files are written first.' },
  R20: { fault: 'nginx caches by inode and time', expected: 'Each set is of new inodes, times are never set.' },
  R21: { fault: 'Going back fails too', expected: 'The newest valid set stays; told as ROLLBACK_FAILED.' },
  R22: { fault: 'Twenty certificates, one target', expected: 'One reload for all.' },

  N1: { fault: 'Slowloris', expected: 'Cut off; others are served meanwhile.' },
  N2: { fault: 'Oversized, malformed, smuggled requests', expected: 'Refused and closed.' },
  N3: { fault: 'The port is in use', expected: 'The start ends with what to do.' },
  N4: { fault: 'Somebody tries to change something over TCP', expected: 'Refused, told once.' },

  G1: { fault: 'Mistakes in the config', expected: 'All at once, each at its line; exit 78.' },
  G2: { fault: 'mode: 0600 without quotes', expected: 'Refused, with what YAML made of it.' },
  G3: { fault: 'Alias bombs, huge files, __proto__', expected: 'Refused quickly.' },
  G4: {
    fault: 'The config changes at run time',
    expected: 'A broken one changes nothing; a good one only what it changes.',
  },

  K1: { fault: 'The root or the intermediate changes', expected: 'Accepted when anchored, refused when not.' },
  K2: { fault: 'The CA ends soon', expected: 'Told long before.' },
  K3: {
    fault: 'CRL or OCSP tell of a revocation, or cannot be reached',
    expected:
      'Nobody is asked without `revocation`; with it, a revoked one is replaced, and trouble of those asked is one warning ([revocation.md](revocation.md)).',
  },

  K4: {
    fault: 'A revocation list cannot be had, or has ended',
    expected: 'The last one stays, the status says so, and it is asked for again.',
  },
  K5: {
    fault: 'A list is older, cut off, forged, or a delta without its base',
    expected: 'Nothing of it is taken, be it for a trust or for a check.',
  },
  K6: {
    fault: 'The target does not take a new CA',
    expected: 'Gone back to the last proven set; certificates of that CA wait, and nothing is issued again.',
  },
  K7: {
    fault: 'A certificate comes before peers trust its CA',
    expected: 'It waits for the proof and `spread`, but never beyond the end of the one in service.',
  },

  S1: {
    fault: 'A source file is half written, or its halves do not match',
    expected: 'Nothing is taken before both are there.',
  },
  S2: {
    fault: 'The ACME order is not fulfilled: a name is not confirmed, a DNS hook hangs',
    expected: 'Told with the name and the reason of the CA; a command that hangs is killed.',
  },
  S3: {
    fault: 'The first source cannot deliver',
    expected: 'The fallback is asked in the emergency window, or at once where nothing is in service; then back.',
  },
  S4: {
    fault: 'A server of certificates, or the SPIFFE agent, is away or sends what is none',
    expected: 'Named, and nothing is taken from it.',
  },

  X1: { fault: 'Eviction, drain', expected: 'As P1.' },
  X2: { fault: 'The container restarts, the volume stays', expected: 'Nothing is issued.' },
  X3: {
    fault: 'No root, no home, read-only, no capabilities, random user',
    expected: 'Works; writes only to its volumes.',
  },
  X4: {
    fault: 'Volumes that everybody may write; setgid; a foreign owner',
    expected: 'An own directory in it; a foreign one is refused.',
  },
  X5: {
    fault: 'The target starts before the files are there',
    expected: '`wait` holds it back; `once` serves as init container.',
  },
  X6: { fault: 'Probes cannot reach loopback', expected: 'Listens where it is told; `wait` serves as exec probe.' },
  X7: { fault: 'A volume in memory, near its limit', expected: 'As F1.' },
  X8: { fault: 'The consumer mounts a single file', expected: 'Documented; refused where certferry can see it.' },
}
