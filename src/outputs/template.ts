import * as z from 'zod'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { Template } from '../text/template.ts'
import { secretFileOptions } from './options.ts'
import { defineSecretOutput, textFile } from './secret-output.ts'

export const template = defineSecretOutput({
  kind: 'template',
  summary: 'A file that a template in Liquid makes of the values; see docs/templates.md.',
  options: z
    .strictObject({
      ...secretFileOptions,
      template: z
        .string()
        .optional()
        .describe('The template, such as "user={{ db.username }}"; either this or templateFile'),
      templateFile: z
        .string()
        .regex(/^\/[^\0]*$/, 'must be an absolute path')
        .optional()
        .describe('File that holds it; read at the start, and when the config is loaded again after a change of it'),
    })
    .refine(({ template, templateFile }) => (template === undefined) !== (templateFile === undefined), {
      error: 'needs either template or templateFile',
    }),
  create: (options, { values: known }) => {
    const { file, template: text, templateFile } = options
    let parsed: Template | undefined
    const base = textFile(options, (values, now) => {
      if (!parsed) throw new SidecarError('BUG', `the template of ${file} is not loaded`)
      return parsed.render(values, { now })
    })
    return {
      ...base,
      prepare: async () => {
        await base.prepare?.()
        if (parsed) return
        // 10 ms and 4 MiB, for those who have one.
        const { parseTemplate } = await import('../text/template.ts')
        const found = parseTemplate(text ?? read(templateFile ?? ''), templateFile ?? `of ${file}`)
        const unknown = found.reads.filter((name) => !known.includes(name))
        if (unknown.length > 0)
          throw new SidecarError(
            'TEMPLATE_INVALID',
            `template ${templateFile ?? `of ${file}`} reads ${unknown.join(', ')}, which is not in values; there are: ${known.join(', ')}`,
          )
        parsed = found
      },
    }
  },
})

function read(path: string): string {
  try {
    return readPlainFile(path).toString('utf8')
  } catch (cause) {
    throw new SidecarError('TEMPLATE_INVALID', `cannot read ${path} (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
}
