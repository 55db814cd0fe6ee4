import { parseGoTemplate, Untranslatable } from './go-template.ts'
import { type Context, given, type PlainMap, settleRest } from './migration.ts'
import type { Settings } from './settings.ts'
import { type TemplateDefaults, translateAll } from './templates.ts'

/** What a child process is given in its environment. */
export interface ChildEnv {
  readonly secret: PlainMap
  /** `DB_PASSWORD: env.db.password`. */
  readonly env: PlainMap
}

const SECRET = 'env'

/** `env_template`: each variable holds one field as it is, which is what `exec.env` can say. */
export function envFrom(
  blocks: readonly Settings[],
  { delimiters, poll }: TemplateDefaults,
  context: Context,
): ChildEnv | undefined {
  const variables = blocks.flatMap((block) => {
    const [name = ''] = block.labels
    const source = block.text('source')
    const text = block.text('contents') ?? (source === undefined ? undefined : context.surroundings.read(source))
    const lose = (why: string) => {
      context.draft.lose({
        what: `env_template "${name}"`,
        line: block.line,
        why,
        ...(text !== undefined && { template: text }),
      })
      return []
    }
    const left = block.text('left_delimiter') ?? delimiters.left
    const right = block.text('right_delimiter') ?? delimiters.right
    settleRest(
      block,
      `env_template "${name}"`,
      { covered: { error_on_missing_key: 'a value that is absent is always an error, which names it' } },
      context,
    )
    if (!/^[A-Za-z_]\w*$/.test(name)) return lose('is no name of a variable')
    if (text === undefined) return lose('has no contents that can be read here')
    try {
      const parts = parseGoTemplate(text, { left, right })
      // To the same end as below: what cannot be translated is told by itself.
      const { liquid } = translateAll([parts], poll)
      return fieldIn(liquid[0]?.template ?? '') === undefined
        ? lose(
            'puts a text together; a variable of exec.env holds one field as it is. Write the text to a file with an output of kind template, or have the program put it together',
          )
        : [{ name, parts }]
    } catch (error) {
      if (error instanceof Untranslatable) return lose(`line ${error.line} of it: ${error.message}`)
      throw error
    }
  })
  if (variables.length === 0) return undefined
  const { values, liquid } = translateAll(
    variables.map(({ parts }) => parts),
    poll,
  )
  const env = Object.fromEntries(
    variables.map(({ name }, index) => [name, `${SECRET}.${fieldIn(liquid[index]?.template ?? '') ?? ''}`]),
  )
  variables.forEach(({ name }, index) => {
    const template = liquid[index]?.template ?? ''
    if (template !== template.trim())
      context.draft.remark(
        env,
        name,
        `${context.tool} kept the white space around it; certferry gives the field alone.`,
      )
  })
  return { secret: { name: SECRET, values }, env }
}

/** `db.password`, where that is all a template prints. */
const fieldIn = (template: string): string | undefined =>
  /^\s*\{\{ (\w+(?:\.\w+|\["[^"\\]*"\])+) \}\}\s*$/.exec(template)?.[1]

/** `exec` of Vault Agent. */
export function childFrom(
  exec: Settings | undefined,
  env: ChildEnv | undefined,
  context: Context,
): { readonly exec: PlainMap; readonly command: string } | undefined {
  if (!exec) {
    if (env) context.draft.lose({ what: 'exec', line: 1, why: 'is missing, though env_template needs it' })
    return undefined
  }
  const command = exec.list('command') ?? []
  const restart = exec.text('restart_on_secret_changes') ?? 'always'
  const stopSignal = exec.text('restart_stop_signal')
  settleRest(exec, 'exec', { lost: { child_process_stdout: STREAMS, child_process_stderr: STREAMS } }, context)
  const map = given({ env: env?.env, onChange: restart === 'never' ? 'nothing' : 'restart', stopSignal })
  context.draft.remark(
    map,
    'onChange',
    'When the command ends by itself, certferry ends as it did, and whoever runs certferry starts it again.',
  )
  return { exec: map, command: commandLine(command) }
}

const STREAMS = 'the command has the streams of certferry; redirect them where it is started'

/** As a person types it in a shell. */
export const commandLine = (words: readonly string[]): string =>
  words.map((word) => (/^[\w./:@%+,=-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`)).join(' ')
