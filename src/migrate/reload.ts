import { readSignal } from '../injector/vault-k8s-template.ts'
import { type Context, given, type PlainMap } from './migration.ts'
import type { Settings } from './settings.ts'

/** What is run or signalled after a file has changed, as `reload` of certferry; undefined where nothing is. */
export function reloadOf(template: Settings, context: Context): PlainMap | undefined {
  const exec = template.block('exec')
  const words = exec?.list('command') ?? template.list('command')
  const timeout = exec?.duration('timeout') ?? template.duration('command_timeout')
  if (exec?.flag('enabled') === false || words === undefined || words.join('') === '') return undefined
  const [line = '', ...more] = words
  const target = more.length === 0 ? readSignal(line) : undefined
  if (target !== undefined) {
    const [signal = '', process = ''] = target.split(':')
    const reload: PlainMap = { kind: 'signal', process, signal }
    context.draft.remark(reload, 'process', `Was run as: ${line}. Neither a shell nor pkill is needed.`)
    return reload
  }
  const command = more.length > 0 ? words : argvOf(line)
  const reload = given({ kind: 'exec', command, timeout })
  context.draft.remark(
    reload,
    'command',
    `Runs without the environment of certferry, but for PATH, LANG and TZ; what it needs goes into env.${command[0] === '/bin/sh' ? ' It needs a shell, which the image of certferry does not have.' : ''}`,
  )
  return reload
}

/** Both tools hand a single text to a shell; one without anything special to a shell needs none. */
function argvOf(line: string): readonly string[] {
  const words = line.trim().split(/\s+/)
  const isPlain = words.every((word) => /^[\w./:@%+,=-]+$/.test(word)) && !/^\w+=/.test(words[0] ?? '')
  return isPlain ? words : ['/bin/sh', '-c', line]
}
