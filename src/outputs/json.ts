import * as z from 'zod'
import { secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const json = defineSecretOutput({
  kind: 'json',
  summary: 'The values as a JSON document.',
  options: z.strictObject(secretFileOptions),
  create: (options) => textFile(options, (values) => `${JSON.stringify(values, null, 2)}\n`),
})
