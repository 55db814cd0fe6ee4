import * as z from 'zod'
import { suggestion } from './core/near.ts'

/** One implementation of a family (source, output, reloader, …): its name, its options and how it is made. */
export interface Definition<Kind extends string, Options extends z.ZodObject, Deps, Made> {
  readonly kind: Kind
  /** One sentence for the reference docs. */
  readonly summary: string
  readonly options: Options
  readonly create: (options: z.output<Options>, deps: Deps) => Made
}

/** Gives a family its `defineX`: fixes what `create` receives and returns, infers the options from the schema. */
export const definer =
  <Deps, Made>() =>
  <const Kind extends string, Options extends z.ZodObject>(definition: Definition<Kind, Options, Deps, Made>) =>
    definition

type AnyDefinition<Deps, Made> = Definition<string, z.ZodObject, Deps, Made>

/** A family: its schema is the union of the options of all members, told apart by `kind`. */
export interface Registry<Deps, Made> {
  readonly schema: z.ZodType<{ readonly kind: string }>
  readonly definitions: readonly AnyDefinition<Deps, Made>[]
  create(options: { readonly kind: string }, deps: Deps): Made
}

export function registry<Deps, Made>(...definitions: readonly AnyDefinition<Deps, Made>[]): Registry<Deps, Made> {
  const byKind = new Map(definitions.map((definition) => [definition.kind, definition]))
  const members: z.ZodObject<{ kind: z.ZodLiteral<string> }>[] = definitions.map(({ kind, options }) =>
    options.extend({ kind: z.literal(kind) }).strict(),
  )
  const [first, ...rest] = members
  if (!first) throw new TypeError('a registry needs at least one definition')
  return {
    schema: z.discriminatedUnion('kind', [first, ...rest], {
      error: ({ code, input }) =>
        code === 'invalid_union'
          ? `${troubleWith(input, [...byKind.keys()])}: ${[...byKind.keys()].join(', ')}`
          : undefined,
    }),
    definitions,
    create: ({ kind, ...options }, deps) => {
      const definition = byKind.get(kind)
      if (!definition) throw new TypeError(`no implementation of kind ${kind}`)
      return definition.create(options, deps)
    },
  }
}

function troubleWith(input: unknown, known: readonly string[]): string {
  if (typeof input !== 'object' || input === null || !('kind' in input)) return 'is required; one of'
  const near = typeof input.kind === 'string' ? suggestion(input.kind, known) : ''
  return near ? `unknown kind${near} Known here` : 'unknown kind; known here'
}
