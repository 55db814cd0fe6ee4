import * as z from 'zod'
import { entriesOf } from '../text/entries.ts'
import { toShellEnv } from '../text/shell-env.ts'
import { entries, secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const env = defineSecretOutput({
  kind: 'env',
  summary: "Lines of export NAME='value', for a shell to source.",
  options: z.strictObject({ ...secretFileOptions, entries }),
  create: (options) => textFile(options, (values) => toShellEnv(entriesOf(values, options.entries))),
})
