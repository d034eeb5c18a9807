package server

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/berthoci/berth/internal/strictyaml"
)

// Rules say who may do what, for an [Issuer]. What no rule allows is not allowed; their order does not
// matter. In an access file they are written in YAML, which [ParseRules] reads:
//
//	rules:
//	  # Ada may do everything, and list the repositories.
//	  - users: [ada]
//	    repositories: ["**"]
//	    actions: ["*"]
//	    catalog: true
//
//	  # The builders push images and indexes of images below app, and nothing else.
//	  - users: [ci, nightly]
//	    repositories: ["app/**"]
//	    actions: [pull, push]
//	    classes: ["application/vnd.oci.image.*"]
//
//	  # Whoever has logged in reads everything.
//	  - users: ["*"]
//	    repositories: ["**"]
//	    actions: [pull]
//
//	  # Everybody reads what is public.
//	  - anonymous: true
//	    repositories: ["public/*"]
//	    actions: [pull]
type Rules []Rule

// Rule allows some people some actions. Each of its users may do each of its actions in each of its
// repositories.
type Rule struct {
	// Users are names of the password file; "*" is everybody who has logged in.
	Users []string
	// Anonymous is for everybody: those who have not logged in, and those who have, so that nobody
	// may do less for having logged in.
	Anonymous bool
	// Repositories are globs of repository names, as doublestar has them: * stands for anything but
	// a slash, ** for anything; "app/**" is app too.
	Repositories []string
	// Actions are "pull", "push" and "delete"; "*" is all of them. To push is not to pull, and most
	// clients look at what is there before they push: give both.
	Actions []string
	// Catalog allows to list the names of all repositories.
	Catalog bool
	// Classes are globs of the classes of manifests that this rule allows to push, as those of a
	// [Policy]. None: all.
	Classes []string
}

const (
	// maxRules bounds an access file, in bytes.
	maxRules = 256 << 10
	// anonymous is the name that nobody has.
	anonymous = ""
)

// allActions are all that can be done with a repository.
func allActions() []string { return []string{"pull", "push", "delete"} }

// ParseRules reads an access file of at most 256 KiB.
//
// Errors are one line, and name the line of the file, or the number of the rule, and what is wanted: for
// what is no YAML, for fields that there are not, for rules that allow nothing or nobody, and for a
// file without rules.
func ParseRules(file io.Reader) (Rules, error) {
	data, err := io.ReadAll(io.LimitReader(file, maxRules+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRules {
		return nil, fmt.Errorf("it has more than %d KiB; repositories can be named by patterns", maxRules>>10)
	}
	var parsed struct{ Rules Rules }
	if err := strictyaml.Decode(data, &parsed, ruleFields); err != nil {
		return nil, err
	}
	if len(parsed.Rules) == 0 {
		return nil, errors.New(`no rule in it; write "rules:" and below it a list, like "- {users: [ada], repositories: ['**'], actions: ['*']}"`)
	}
	return parsed.Rules, parsed.Rules.Validate()
}

// ruleFields are what a file of rules can have.
const ruleFields = "a file has rules, and a rule has users, anonymous, repositories, actions, catalog and classes"

// Validate says what is wrong with a rule, the first of those where something is, by its number from 1.
func (rs Rules) Validate() error {
	for i, rule := range rs {
		if err := rule.validate(); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

func (r *Rule) validate() error {
	switch {
	case len(r.Users) == 0 && !r.Anonymous:
		return errors.New(`it is for nobody; add "users: [NAME]", or "anonymous: true"`)
	case slices.Contains(r.Users, ""):
		return errors.New("a user has no name")
	case slices.Contains(r.Users, "anonymous"):
		return errors.New(`"anonymous" is no user; write "anonymous: true"`)
	case len(r.Repositories) == 0 && len(r.Actions) == 0 && !r.Catalog:
		return errors.New(`it allows nothing; add "repositories" and "actions", or "catalog: true"`)
	case (len(r.Repositories) == 0) != (len(r.Actions) == 0):
		return errors.New(`"repositories" and "actions" go together`)
	case len(r.Classes) > 0 && !r.allows("push"):
		return errors.New(`"classes" are for rules that allow to push`)
	}
	for _, action := range r.Actions {
		if action != "*" && !slices.Contains(allActions(), action) {
			return fmt.Errorf("there is no action %.40q; there are pull, push, delete and *", action)
		}
	}
	for _, pattern := range slices.Concat(r.Repositories, r.Classes) {
		if err := validatePattern(pattern); err != nil {
			return err
		}
	}
	for _, pattern := range r.Repositories {
		if strings.Contains(pattern, ":") || strings.ToLower(pattern) != pattern {
			return fmt.Errorf("no repository has a name like %.100q: names have no host, no tag and no upper case letters", pattern)
		}
	}
	return nil
}

// Users lists the users that the rules name, each once, and "*" if everybody who has logged in is among
// them.
func (rs Rules) Users() (names []string) {
	for _, r := range rs {
		names = append(names, r.Users...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// covers reports whether a rule is for a user.
func (r *Rule) covers(user string) bool {
	if r.Anonymous {
		return true
	}
	return user != anonymous && includes(r.Users, user)
}

func (r *Rule) allows(action string) bool { return includes(r.Actions, action) }

// includes reports whether a word is in a list, where * is every word.
func includes(list []string, word string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, word)
}

// allow reports whether a user may do something with a repository.
func (rs Rules) allow(user, repository, action string) bool {
	return slices.ContainsFunc(rs, func(r Rule) bool {
		return r.covers(user) && r.allows(action) && matchesAny(r.Repositories, repository)
	})
}

// allowCatalog reports whether a user may list the repositories.
func (rs Rules) allowCatalog(user string) bool {
	return slices.ContainsFunc(rs, func(r Rule) bool { return r.Catalog && r.covers(user) })
}

// classes are the patterns of what a user may push to a repository; any if one rule has none.
func (rs Rules) classes(user, repository string) (patterns []string, any bool) {
	for _, r := range rs {
		if !r.covers(user) || !r.allows("push") || !matchesAny(r.Repositories, repository) {
			continue
		}
		if len(r.Classes) == 0 {
			return nil, true
		}
		patterns = append(patterns, r.Classes...)
	}
	return patterns, false
}
