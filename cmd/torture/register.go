package main

import "slices"

// absent is the value of a tag or manifest that is not there.
const absent = ""

// effect is what one operation does to one tag or one manifest.
type effect struct {
	begin, end int
	// sure: it must have happened. Otherwise it may have, at any time after begin.
	sure  bool
	value string
	// only: it happens where the value was this, and is nothing elsewhere. Empty: everywhere.
	only string
}

// register is all that was done to one tag or manifest. The first effect is the state at the start.
type register []effect

// allowed returns the values that the register can have, in byte order.
func (r register) allowed() []string {
	var values []string
	for _, e := range r {
		if r.possible(e) && !slices.Contains(values, e.value) {
			values = append(values, e.value)
		}
	}
	slices.Sort(values)
	return values
}

// possible reports whether an effect can be the last one.
func (r register) possible(e effect) bool {
	if r.over(e, never) {
		return false
	}
	return e.only == "" || slices.ContainsFunc(r, func(was effect) bool {
		return was.only == "" && was.value == e.only && was.begin < e.end && !r.over(was, e.begin)
	})
}

// over reports whether an effect was undone for sure before a position: another one that must have
// happened began after its end.
func (r register) over(e effect, position int) bool {
	return slices.ContainsFunc(r, func(later effect) bool {
		return later.sure && later.begin > e.end && later.end < position &&
			(later.only == "" || later.only == e.value)
	})
}
