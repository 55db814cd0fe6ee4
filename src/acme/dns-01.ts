import { SidecarError } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { commandLine, inherited, run } from '../reloaders/command.ts'
import { createUpdates } from './dns-update.ts'
import type { ChallengeOptions, HookOptions } from './options.ts'
import type { Responder, ResponderDeps, Wanted } from './responder.ts'

/** Makes and removes a TXT record (RFC 8555 §8.4). */
interface Records {
  add(name: string, text: string, domain: string, signal: AbortSignal): Promise<void>
  remove(name: string, text: string, domain: string, signal: AbortSignal): Promise<void>
}

/** A name server has this long to take a record away, also when all else has to stop, ms; a hook has its own timeout. */
const CLEANUP_MS = 10_000

export function openDns01({ exec, rfc2136, propagation }: ChallengeOptions, deps: ResponderDeps): Responder {
  const records = rfc2136 ? createUpdates(rfc2136, readSecret(rfc2136.keyFile), deps.clock) : hooks(exec, deps)
  return {
    present: async ({ name, proof }, signal) => {
      await records.add(recordOf(name), proof, name, signal)
    },
    ...(propagation !== undefined && { settle: (signal) => deps.clock.sleep(propagation, signal) }),
    cleanup: ({ name, proof }: Wanted) =>
      records.remove(recordOf(name), proof, name, AbortSignal.timeout(exec?.timeout ?? CLEANUP_MS)).then(
        () => undefined,
        (error: unknown) =>
          `the TXT record of ${recordOf(name)} may be left behind: ${error instanceof Error ? error.message : String(error)}`,
      ),
    [Symbol.asyncDispose]: async () => {},
  }
}

const recordOf = (name: string) => `_acme-challenge.${name}`

function readSecret(file: string): Buffer {
  try {
    const text = readPlainFile(file).toString('latin1').trim()
    if (/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return Buffer.from(text, 'base64')
  } catch (cause) {
    throw new SidecarError('ACME_CHALLENGE_SETUP', `rfc2136.keyFile ${file} cannot be read`, { cause })
  }
  throw new SidecarError('ACME_CHALLENGE_SETUP', `rfc2136.keyFile ${file} holds no base64`)
}

/** The commands of the config; what they are told is in docs/acme.md. */
function hooks(exec: HookOptions | undefined, { clock, env }: ResponderDeps): Records {
  const call = async (argv: HookOptions['cleanup'], told: Readonly<Record<string, string>>, signal: AbortSignal) => {
    if (!argv || !exec) return
    const ended = await run({ argv, timeoutMs: exec.timeout, env: { ...inherited(env), ...told } }, clock, signal)
    if (ended.how === 'ok') return
    const said = ended.output === '' ? '' : `: ${ended.output}`
    const message = `the DNS hook ${commandLine(argv)} ${ended.why}${said}`
    throw new SidecarError(ended.how === 'timeout' ? 'ACME_HOOK_TIMEOUT' : 'ACME_CHALLENGE_SETUP', message)
  }
  const told = (action: string, name: string, text: string, domain: string) => ({
    CERTFERRY_ACME_ACTION: action,
    CERTFERRY_ACME_DOMAIN: domain,
    CERTFERRY_ACME_RECORD: name,
    CERTFERRY_ACME_VALUE: text,
  })
  return {
    add: (name, text, domain, signal) => call(exec?.present, told('present', name, text, domain), signal),
    remove: (name, text, domain, signal) => call(exec?.cleanup, told('cleanup', name, text, domain), signal),
  }
}
