import { stringify } from 'yaml'
import { quote } from '../core/secret.ts'
import { type Annotations, isLabel, PREFIX } from './annotations.ts'
import { parseCertificate } from './short-forms.ts'
import { EQUIVALENTS, type Equivalent, flag } from './vault-k8s-table.ts'
import { readSignal, readTemplate } from './vault-k8s-template.ts'
import type { Trouble } from './wish.ts'

export const VAULT_PREFIX = 'vault.hashicorp.com/'
/** Where vault-k8s mounts what it renders. */
const SECRETS = '/vault/secrets'

export interface Translated {
  /** Those of the pod, with ours for what vault-k8s would have read. */
  readonly annotations: Annotations
  /** By each of ours that was made: that of vault-k8s it comes from, for messages. */
  readonly origins: Annotations
  readonly warnings: readonly string[]
  readonly troubles: readonly Trouble[]
}

/**
 * What a pod asks of vault-k8s, in our annotations. Of two that say the same, that of the pod under our prefix counts. Undefined where it asks
 * for nothing, or has got it already.
 */
export function fromVaultK8s(annotations: Annotations): Translated | undefined {
  if (flag(annotations[`${VAULT_PREFIX}agent-inject`] ?? '') !== 'true') return undefined
  if (annotations[`${VAULT_PREFIX}agent-inject-status`] === 'injected') return undefined
  const theirs = Object.entries(annotations).flatMap(([key, value]) =>
    key.startsWith(VAULT_PREFIX) ? [{ key, value, ...familyOf(key.slice(VAULT_PREFIX.length)) }] : [],
  )
  const says = (ours: string) => annotations[PREFIX + ours] !== undefined
  const plain = theirs.map((one) => translate(one, says))
  const secrets = secretNames(theirs).map(
    (name) => new Map([...theirs].flatMap((one) => (one.name === name ? [[one.family, one]] : []))),
  )
  const all = [
    ...plain,
    ...clashes(secrets),
    ...secrets.map((secret) => translateSecret(secret, says, directoryOf(annotations))),
  ]
  const made = all.flatMap(({ made = [] }) => made).filter(({ ours }) => !says(ours))
  return {
    annotations: {
      [`${PREFIX}volume-path`]: SECRETS,
      ...Object.fromEntries(made.map(({ ours, value }) => [PREFIX + ours, value])),
      ...annotations,
    },
    origins: Object.fromEntries(made.map(({ ours, from }) => [PREFIX + ours, from])),
    warnings: all.flatMap(({ warning }) => (warning === undefined ? [] : [`certferry: ${warning}`])),
    troubles: all.flatMap(({ trouble }) => trouble ?? []),
  }
}

interface Theirs {
  /** With its prefix. */
  readonly key: string
  readonly value: string
  /** As in the table. */
  readonly family: string
  /** Of the secret, where it is about one. */
  readonly name: string | undefined
  readonly equivalent: Equivalent | undefined
}

interface Result {
  /** Ours without prefix. */
  readonly made?: readonly { readonly ours: string; readonly value: string; readonly from: string }[]
  readonly warning?: string | undefined
  readonly trouble?: Trouble
}

type Says = (ours: string) => boolean

const OF_ONE = '<name>'
/** Longest first, so that a family is not taken for another one whose name begins alike. */
const FAMILIES = Object.keys(EQUIVALENTS)
  .filter((family) => family.endsWith(OF_ONE))
  .toSorted((a, b) => b.length - a.length)

function familyOf(short: string): Pick<Theirs, 'family' | 'name' | 'equivalent'> {
  if (Object.hasOwn(EQUIVALENTS, short)) return { family: short, name: undefined, equivalent: EQUIVALENTS[short] }
  const family = FAMILIES.find((each) => short.startsWith(each.slice(0, -OF_ONE.length)))
  if (family === undefined) return { family: short, name: undefined, equivalent: undefined }
  return { family, name: short.slice(family.length - OF_ONE.length), equivalent: EQUIVALENTS[family] }
}

function translate({ key, value, name, equivalent }: Theirs, says: Says): Result {
  const { becomes, refused, note, unless = [] } = equivalent ?? { note: 'it is not known' }
  if (refused) {
    const isLifted = unless.some((ours) => says(ours.replace(OF_ONE, ownName(name))))
    if (flag(value) === 'false' || isLifted) return {}
    return { trouble: { annotation: key, message: `has no equivalent in certferry: ${note}` } }
  }
  if (becomes === undefined) return { warning: `${key} is ignored: ${note}` }
  // Those of one secret are read together.
  if (name !== undefined) return {}
  const also = becomes === 'vault-namespace' ? ['namespace'] : []
  const ours = [becomes, ...also].find(says)
  if (ours !== undefined) return ours === 'inject' ? {} : { warning: `${PREFIX}${ours} counts, not ${key}` }
  return { made: [{ ours: becomes, value: equivalent?.value?.(value) ?? value, from: key }] }
}

/** The family of an annotation of one secret → that annotation. */
type Secret = ReadonlyMap<string, Theirs>

/** Annotations that say what a secret is to be; the others only add to one. */
const SECRET_FAMILIES = ['secret', 'template', 'file', 'perms', 'command'].map(
  (each) => `agent-inject-${each}-${OF_ONE}`,
)

const secretNames = (theirs: readonly Theirs[]): string[] => [
  ...new Set(
    theirs.flatMap(({ family, name }) => (name !== undefined && SECRET_FAMILIES.includes(family) ? [name] : [])),
  ),
]

const ownName = (name = ''): string => name.toLowerCase()

/** Names that differ in upper and lower case would be one certificate. */
function clashes(secrets: readonly Secret[]): Result[] {
  const byName = Map.groupBy(secrets, (secret) => ownName(nameOf(secret)))
  return [...byName.values()].flatMap(([first, second]) =>
    first && second
      ? [
          {
            trouble: {
              annotation: keyOf(second),
              message: `means the same certificate as ${keyOf(first)}; give it another name`,
            },
          },
        ]
      : [],
  )
}

const nameOf = (secret: Secret): string => [...secret.values()][0]?.name ?? ''
const keyOf = (secret: Secret): string => [...secret.values()][0]?.key ?? ''

function translateSecret(secret: Secret, says: Says, at: (name: string) => string): Result {
  const of = (family: string) => secret.get(`agent-inject-${family}-${OF_ONE}`)
  const name = ownName(nameOf(secret))
  const instead = `write ${PREFIX}certificate.${isLabel(name) ? name : 'web'} instead`
  const fail = (annotation: string, message: string): Result => ({
    trouble: { annotation, message: `${message}; ${instead}` },
  })
  const command = of('command')
  if (says(`certificate.${name}`))
    return { warning: `${PREFIX}certificate.${name} counts, not ${keyOf(secret)}`, ...reloadOf(name, command, says) }
  const path = of('secret')
  const template = of('template')
  if (!path) return fail(keyOf(secret), `has no ${VAULT_PREFIX}agent-inject-secret-${nameOf(secret)} beside it`)
  if (!isLabel(name)) return fail(path.key, `"${quote(nameOf(secret), 60)}" is no name for a certificate`)
  if (!isPki(path.value))
    return fail(
      path.key,
      `"${quote(path.value, 80)}" is no path of PKI; certferry delivers certificates, so keep Vault Agent for this pod, or`,
    )
  if (!template) return fail(path.key, 'has no template that says for which name')
  const call = readTemplate(template.value)
  if (typeof call === 'string') return fail(template.key, quote(call, 200))
  if (trimmed(call.path) !== trimmed(path.value))
    return fail(template.key, `reads "${quote(call.path, 80)}", which is another secret`)
  const options = parseCertificate(`${call.path}?${call.query}`)
  if (typeof options === 'string') return fail(template.key, options)
  const perms = of('perms')?.value
  const output = {
    kind: 'combined',
    file: of('file')?.value ?? nameOf(secret),
    ...(perms !== undefined && { mode: perms }),
  }
  const reload = reloadOf(name, command, says)
  const directory = at(name)
  return {
    ...reload,
    made: [
      { ours: `certificate.${name}`, value: stringify({ ...options, outputs: [output] }), from: path.key },
      ...(reload.made ?? []),
    ],
    warning: `${path.key} is at ${directory}/${output.file}, key first, then the chain: a certificate has a directory of its own`,
  }
}

/** Where a certificate is going to be, as `wish.ts` decides; for the warning. */
const directoryOf = (annotations: Annotations) => (name: string) => {
  const volume = annotations[`${PREFIX}volume-path`] ?? annotations[`${VAULT_PREFIX}secret-volume-path`] ?? SECRETS
  const own = annotations[`${PREFIX}directory.${name}`]
  return own?.startsWith('/') ? own : `${volume.replace(/\/$/, '')}/${own ?? name}`
}

function reloadOf(name: string, command: Theirs | undefined, says: Says): Result {
  if (!command || says(`reload.${name}`)) return {}
  const signal = readSignal(command.value)
  if (signal !== undefined) return { made: [{ ours: `reload.${name}`, value: signal, from: command.key }] }
  const message = `"${quote(command.value, 80)}" is no plain signal, and the image of certferry has no shell; write ${PREFIX}reload.${name}, such as SIGHUP:nginx or an http URL`
  return { trouble: { annotation: command.key, message } }
}

const isPki = (path: string): boolean => /\/(?:issue|sign)\/[^/]+$/.test(path)
const trimmed = (path: string): string => path.replace(/^\//, '')
