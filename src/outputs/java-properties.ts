import * as z from 'zod'
import { entriesOf } from '../text/entries.ts'
import { toJavaProperties } from '../text/java-properties.ts'
import { entries, secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const javaProperties = defineSecretOutput({
  kind: 'java-properties',
  summary: 'A .properties file of Java, in ISO 8859-1 with escapes.',
  options: z.strictObject({ ...secretFileOptions, entries }),
  create: (options) => textFile(options, (values) => toJavaProperties(entriesOf(values, options.entries))),
})
