import * as z from 'zod'

/** What JSON can hold. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/** One value of a secret: what lies at one place, by field. */
export type Fields = Readonly<Record<string, Json>>

/** The values of a secret, by the name the config gives each. */
export type Values = Readonly<Record<string, Fields>>

export const Json: z.ZodType<Json> = z.json()
export const Fields: z.ZodType<Fields> = z.record(z.string(), Json)
