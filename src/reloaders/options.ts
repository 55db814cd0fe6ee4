import * as z from 'zod'
import { Secret } from '../core/secret.ts'

const Program = z
  .string({ error: 'must name a program' })
  .regex(/^\/|^[^/\0]+$/, 'must be an absolute path, or a name found in PATH')
const Argument = z.string().regex(/^[^\0]*$/, 'must not hold a null byte')

/** Config: a program and its arguments. No shell reads it, so nothing in it is expanded. */
export const Argv = z.tuple([Program], Argument, {
  error: 'must be a list such as [nginx, -s, reload]; no shell is run',
})
export type Argv = z.output<typeof Argv>

/** Config: a text that may be a credential, never printed. */
export const SecretText = z.string().transform((text) => new Secret(text))

export const AbsolutePath = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')
