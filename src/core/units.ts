import * as z from 'zod'

const MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const CENTURY = 36_525 * MS.d

/** '90s', '1h30m', '30d' → ms. Throws a RangeError that says what is wrong. */
export function parseDuration(text: string): number {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/.test(text))
    throw new RangeError(`"${text}" is not a duration; write for example 90s, 15m, 1h30m or 30d`)
  let total = 0
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g))
    total += Number(amount) * MS[unit as keyof typeof MS]
  if (total <= 0) throw new RangeError(`"${text}" must be longer than zero`)
  if (total > CENTURY) throw new RangeError(`"${text}" is longer than a century`)
  return Math.round(total)
}

/** ms → '2d 3h', '4m 10s', '850ms': the two largest units, for people. Negative values get a minus sign. */
export function formatDuration(ms: number): string {
  if (ms < 0) return `-${formatDuration(-ms)}`
  if (ms < MS.s) return `${Math.round(ms)}ms`
  let rest = Math.round(ms / MS.s) * MS.s
  const parts: string[] = []
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    const amount = Math.floor(rest / MS[unit])
    rest -= amount * MS[unit]
    if (amount > 0) parts.push(`${amount}${unit}`)
    else if (parts.length > 0) break
    if (parts.length === 2) break
  }
  return parts.join(' ')
}

/** '2/3', '66%' or 0.66 → a number strictly between 0 and 1. Throws a RangeError. */
export function parseFraction(value: string | number): number {
  const text = String(value)
  const ratio = /^(\d+)\s*\/\s*(\d+)$/.exec(text)
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text)
  const fraction = ratio ? Number(ratio[1]) / Number(ratio[2]) : percent ? Number(percent[1]) / 100 : Number(text)
  if (!(fraction > 0 && fraction < 1))
    throw new RangeError(`"${text}" is not a fraction between 0 and 1; write for example 2/3, 66% or 0.66`)
  return fraction
}

/** '0600' → 0o600. Only quoted octal strings: YAML 1.2 reads a bare 0600 as the decimal 600. Throws a RangeError. */
export function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text))
    throw new RangeError(`"${text}" is not a file mode; write a quoted octal such as '0600'`)
  return Number.parseInt(text, 8)
}

export const formatMode = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, '0')

/** Wraps a parser that throws RangeError as a zod transform, so its sentence becomes the config error. */
const parsed =
  <In, Out>(parse: (value: In) => Out) =>
  (value: In, context: z.RefinementCtx<In>) => {
    try {
      return parse(value)
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) })
      return z.NEVER
    }
  }

/** Config: a duration such as '72h', kept in ms. */
export const Duration = z
  .string({ error: 'must be a duration such as 90s, 15m, 1h30m or 30d' })
  .meta({ description: 'A duration such as 90s, 15m, 1h30m or 30d', examples: ['72h'] })
  .transform(parsed(parseDuration))
/** Config: how long one attempt may take, in ms; never longer than our timers keep (`clock.ts`). */
export const Timeout = Duration.refine((ms) => ms <= MS.h, { error: 'must be at most 1h' }).meta({
  description: 'A duration of at most 1h, such as 500ms or 30s',
  examples: ['30s'],
})
/** Config: a fraction such as '2/3'. */
export const Fraction = z
  .union([z.string(), z.number()], { error: 'must be a fraction such as 2/3, 66% or 0.66' })
  .meta({ description: 'A fraction between 0 and 1: 2/3, 66% or 0.66', examples: ['2/3'] })
  .transform(parsed(parseFraction))
/** Config: a quoted octal file mode such as '0600'. */
export const Mode = z
  .string({
    error: (issue) =>
      `must be a quoted octal string such as '0600', not the ${typeof issue.input} ${String(issue.input)} (YAML reads an unquoted 0600 as the decimal 600)`,
  })
  .meta({ description: "A quoted octal file mode such as '0600'", examples: ['0600'] })
  .transform(parsed(parseMode))
