import * as z from 'zod'
import { documentOf } from '../text/entries.ts'
import { toYaml } from '../text/formats.ts'
import { entries, secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const yaml = defineSecretOutput({
  kind: 'yaml',
  summary: 'The values as a YAML document.',
  options: z.strictObject({ ...secretFileOptions, entries }),
  create: (options) => textFile(options, (values) => toYaml(documentOf(values, options.entries))),
})
