import * as z from 'zod'
import { DOTENV_READERS, toDotenv } from '../text/dotenv.ts'
import { entriesOf } from '../text/entries.ts'
import { entries, secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const dotenv = defineSecretOutput({
  kind: 'dotenv',
  summary: 'One NAME=value a line, as dotenv, systemd and Docker read it.',
  options: z.strictObject({
    ...secretFileOptions,
    entries,
    reader: z
      .enum(DOTENV_READERS)
      .default('common')
      .describe(
        'Who reads it, since they differ in quotes and line ends: common refuses what any of them would misread',
      ),
  }),
  create: (options) => textFile(options, (values) => toDotenv(entriesOf(values, options.entries), options.reader)),
})
