/** Who is to be woken when: a binary heap. */
export interface DueQueue {
  push(at: number, id: number): void
  /** The first that is due; undefined when there is none. */
  pop(): Due | undefined
}

export interface Due {
  readonly at: number
  readonly id: number
}

export function createDueQueue(): DueQueue {
  const items: Due[] = []
  const at = (index: number) => items[index]?.at ?? Number.POSITIVE_INFINITY
  const swap = (a: number, b: number) => {
    const [first, second] = [items[a], items[b]]
    if (first && second) [items[a], items[b]] = [second, first]
  }
  return {
    push(due, id) {
      items.push({ at: due, id })
      for (let index = items.length - 1; index > 0; ) {
        const parent = (index - 1) >> 1
        if (at(parent) <= at(index)) break
        swap(index, parent)
        index = parent
      }
    },
    pop() {
      const top = items[0]
      const last = items.pop()
      if (!last || items.length === 0) return top
      items[0] = last
      for (let index = 0; ; ) {
        const left = 2 * index + 1
        const least = at(left + 1) < at(left) ? left + 1 : left
        if (at(least) >= at(index)) return top
        swap(index, least)
        index = least
      }
    },
  }
}
