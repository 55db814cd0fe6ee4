import { type ComponentName, component, componentNames, isComponentName } from '../test/support/components.ts'

/** `node tools/components.ts vault nginx …`: makes the named real programs available, saying what it does, and prints where they are. */
const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !isComponentName(name))
if (asked.length === 0 || unknown.length > 0) {
  if (unknown.length > 0) console.error(`unknown component: ${unknown.join(', ')}`)
  console.error(`usage: node tools/components.ts NAME…   with NAME one of ${componentNames.join(', ')}`)
  process.exitCode = 64
} else {
  for (const name of asked.filter(isComponentName)) await report(name)
}

async function report(name: ComponentName) {
  try {
    console.log(`${name}: ${await component(name)}`)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
  }
}
