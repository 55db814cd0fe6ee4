import * as z from 'zod'
import { documentOf } from '../text/entries.ts'
import { toJson } from '../text/formats.ts'
import { entries, secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const json = defineSecretOutput({
  kind: 'json',
  summary: 'The values as a JSON document.',
  options: z.strictObject({ ...secretFileOptions, entries }),
  create: (options) => textFile(options, (values) => toJson(documentOf(values, options.entries))),
})
