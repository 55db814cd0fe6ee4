import { ERRORS, type RetryClass } from '../../src/errors.ts'
import { code, GENERATED, table } from './table.ts'

const RETRIES: Readonly<Record<RetryClass, string>> = {
  transient: 'the network or a busy Vault: after seconds, at most 5 minutes',
  auth: 'a login: after 5 seconds, at most 5 minutes',
  config: 'needs a person: after half a minute, at most 15 minutes; at once when config or credentials change',
  local: 'disk, reload or verification: after seconds, at most a minute; Vault is not asked again',
  never: 'cannot get better by itself: the command ends',
}

export const renderErrors = (): string => `${GENERATED}

# Errors

Every failure has one code. It is \`reason\` in logs, metrics and status, in lower case. \`Exit\` is the exit code where the error ends a
command: 64 usage, 69 no certificate or no sidecar, 70 a defect of certferry, 78 config. The sidecar itself does not end while a valid
certificate is on disk.

## How each class is tried again

${table(
  ['Retry', 'Meaning'],
  Object.entries(RETRIES).map(([retry, meaning]) => [code(retry), meaning]),
)}

## Codes

${table(
  ['Code', 'Retry', 'Exit', 'What to do'],
  Object.entries(ERRORS).map(([name, { retry, exit, hint }]) => [code(name), code(retry), String(exit), hint]),
)}
`
