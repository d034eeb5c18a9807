package sync

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
)

// A range of versions is one or more comparisons that all hold, with spaces or commas between them; || stands between ranges of
// which one has to hold. The comparisons are those that package managers have:
//
//	=1.2.3 !=1.2.3 >1.2 >=1.2 <2 <=2
//	~1.2    as 1.2, and later ones that change no more than the last part
//	^1.2    as 1.2, and later ones that are compatible: the first part that is not zero stays
//	=1.2    any 1.2
//
// A version may begin with v, and may lack parts at its end. One with a pre-release is only in a range that names
// one itself (Semantic Versioning 2.0.0, 9 and 11).
type versionRange [][]comparison

type comparison struct {
	operator string
	version  string // as package semver has it
	early    bool   // whoever wrote it has named a pre-release
}

var operators = []string{">=", "<=", "!=", ">", "<", "=", "~", "^"}

func readRange(text string) (versionRange, error) {
	var all versionRange
	for part := range strings.SplitSeq(text, "||") {
		comparisons, err := readComparisons(part)
		if err != nil {
			return nil, err
		}
		all = append(all, comparisons)
	}
	return all, nil
}

func readComparisons(text string) (all []comparison, err error) {
	for _, o := range operators { // "> 1.2" is ">1.2"
		for strings.Contains(text, o+" ") {
			text = strings.ReplaceAll(text, o+" ", o)
		}
	}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }) {
		some, err := readComparison(word)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%q is no range of versions, like >=1.2 <2 or ^1.4", text)
	}
	return all, nil
}

func readComparison(word string) ([]comparison, error) {
	operator := "="
	for _, o := range operators {
		if strings.HasPrefix(word, o) {
			operator = o
			break
		}
	}
	text := strings.TrimPrefix(word, operator)
	version, ok := readVersion(text)
	if !ok {
		return nil, fmt.Errorf("%q is no version, like 1.2.3", text)
	}
	parts := strings.Count(text, ".") + 1
	switch {
	case operator == "^":
		return between(version, after(version, compatible(version, parts))), nil
	case operator == "~", operator == "=" && parts < 3:
		return between(version, after(version, min(parts, 2))), nil
	}
	return []comparison{{operator, version, semver.Prerelease(version) != ""}}, nil
}

func between(first, end string) []comparison {
	return []comparison{{">=", first, semver.Prerelease(first) != ""}, {"<", end, false}}
}

// readVersion brings a version into the form that package semver compares.
func readVersion(text string) (string, bool) {
	version := "v" + strings.TrimPrefix(text, "v")
	if !semver.IsValid(version) {
		return "", false
	}
	return semver.Canonical(version), true
}

// compatible is how many parts of a version stay.
func compatible(version string, parts int) int {
	numbers := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for i := range min(parts, 2) {
		if numbers[i] != "0" {
			return i + 1
		}
	}
	return parts
}

// after is the first version whose first parts are later, before its pre-releases.
func after(version string, parts int) string {
	core, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	numbers := strings.Split(core, ".")
	for i := range numbers {
		n, _ := strconv.Atoi(numbers[i])
		switch {
		case i == parts-1:
			numbers[i] = strconv.Itoa(n + 1)
		case i >= parts:
			numbers[i] = "0"
		}
	}
	return "v" + strings.Join(numbers, ".") + "-0"
}

// has reports whether a tag is a version that is in the range.
func (r versionRange) has(tag string) bool {
	version, ok := readVersion(tag)
	if !ok {
		return false
	}
	for _, comparisons := range r {
		if inAll(comparisons, version) {
			return true
		}
	}
	return false
}

func inAll(comparisons []comparison, version string) bool {
	early := semver.Prerelease(version) == ""
	for _, c := range comparisons {
		if !c.holds(semver.Compare(version, c.version)) {
			return false
		}
		early = early || c.early
	}
	return early
}

func (c comparison) holds(order int) bool {
	switch c.operator {
	case "=":
		return order == 0
	case "!=":
		return order != 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	case "<":
		return order < 0
	}
	return order <= 0
}
