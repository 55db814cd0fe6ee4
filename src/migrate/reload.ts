import { readSignal } from '../injector/vault-k8s-template.ts'
import { type Context, given, type Notes, type PlainMap, settleRest } from './migration.ts'
import type { Settings } from './settings.ts'

/** What is run or signalled after a file has changed, as `reload` of certferry; undefined where nothing is. */
export function reloadOf(template: Settings, context: Context): PlainMap | undefined {
  const exec = template.block('exec')
  const [short, shortTimeout] = [template.list('command'), template.duration('command_timeout')]
  const words = exec?.list('command') ?? short
  const timeout = exec?.duration('timeout') ?? shortTimeout
  const isOff = exec?.flag('enabled') === false
  if (exec) settleRest(exec, 'template.exec', { lost: EXEC_LOST }, context)
  if (isOff || words === undefined || words.join('') === '') return undefined
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

const ONCE = 'a command of reload runs to its end each time; a program that stays is for certferry exec'
const EXEC_LOST: Notes = {
  env: 'write the variables into env of the reload, which has none but PATH, LANG and TZ besides',
  kill_signal: ONCE,
  kill_timeout: ONCE,
  reload_signal: ONCE,
  splay: 'renewals are spread by jitter already',
}

/** Both tools hand a single text to a shell; one without anything special to a shell needs none. */
function argvOf(line: string): readonly string[] {
  const words = line.trim().split(/\s+/)
  const isPlain = words.every((word) => /^[\w./:@%+,=-]+$/.test(word)) && !/^\w+=/.test(words[0] ?? '')
  return isPlain ? words : ['/bin/sh', '-c', line]
}
