import { isMap, type Json, lookUp, textOf, type Values } from '../core/values.ts'
import { SidecarError } from '../errors.ts'
import type { ExecOptions } from './options.ts'
import { fillIn, type Parts, type Reference } from './references.ts'

/** What the references in an environment ask for: each path once, as values of a secret. */
export interface Referred {
  /** Options of the values, as the config has them. */
  readonly values: Readonly<Record<string, object>>
  /** The variables, filled in. Throws FIELD_MISSING. */
  resolve(values: Values): Record<string, string>
}

/** Throws CONFIG_INVALID for what is encrypted, where the config names no key. */
export function referredIn(variables: ReadonlyMap<string, Parts>, { transit }: Pick<ExecOptions, 'transit'>): Referred {
  const byPlace = new Map<string, { readonly name: string; readonly options: object }>()
  const nameOf = (reference: Reference, variable: string): string => {
    const options = optionsFor(reference, transit)
    const place = JSON.stringify(options)
    const known = byPlace.get(place)
    if (known) return known.name
    // That of the first variable that wants it, where the config could call a value so.
    const name = /^(?!__)[A-Za-z_]\w{0,62}$/.test(variable) ? variable : `reference_${byPlace.size + 1}`
    byPlace.set(place, { name, options })
    return name
  }
  const named = [...variables].map(([variable, parts]) => {
    const names = new Map(
      parts.flatMap((part) => (typeof part === 'string' ? [] : [[part, nameOf(part, variable)] as const])),
    )
    return { variable, parts, names }
  })
  return {
    values: Object.fromEntries([...byPlace.values()].map(({ name, options }) => [name, options])),
    resolve: (values) =>
      Object.fromEntries(
        named.map(({ variable, parts, names }) => [
          variable,
          fillIn(parts, (reference) => {
            const name = names.get(reference) ?? ''
            return textOf(fieldOf(values, name, reference, variable))
          }),
        ]),
      ),
  }
}

function optionsFor(reference: Reference, transit: ExecOptions['transit']): object {
  if (reference.kind === 'decrypt') {
    if (!transit)
      throw new SidecarError(
        'CONFIG_INVALID',
        'the environment holds a reference vault:v1:…, but exec.transit names no key',
      )
    return { kind: 'vault-transit', ...transit, ciphertext: { plaintext: reference.ciphertext } }
  }
  if (reference.kind === 'write') return { kind: 'vault-read', path: reference.path, parameters: reference.data }
  const [, mount, path] = /^(.+?)\/data\/(.+)$/.exec(reference.path) ?? []
  const { version } = reference
  if (mount !== undefined && path !== undefined) return { kind: 'vault-kv', mount, path, ...(version && { version }) }
  return { kind: 'vault-read', path: reference.path }
}

function fieldOf(values: Values, name: string, reference: Reference, variable: string): Json {
  if (reference.kind === 'decrypt') return lookUp(values, `${name}.plaintext`)
  const fields = values[name]
  const found = fields && isMap(fields) ? fields[reference.field] : undefined
  if (found !== undefined) return found
  const there = Object.keys(fields ?? {}).join(', ') || 'none'
  throw new SidecarError(
    'FIELD_MISSING',
    `environment variable ${variable}: ${reference.path} has no field "${reference.field}"; there are: ${there}`,
  )
}
