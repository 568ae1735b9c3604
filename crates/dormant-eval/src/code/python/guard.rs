//! Checks: what a test rules out on the way that it leads to.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker, children};
use crate::code::pattern;
use crate::code::taint::{Cleared, Dangers};

impl<'t> Walker<'t> {
    /// Takes into account that `test` came out as `truth`.
    pub(super) fn refine(&mut self, test: Node<'t>, truth: bool, state: &mut State<'t>) -> Walk {
        self.budget.enter()?;
        self.line = super::line(test);
        match test.kind() {
            "parenthesized_expression" | "await" => {
                if let Some(inner) = test.named_child(0) {
                    self.refine(inner, truth, state)?;
                }
            }
            "not_operator" => {
                if let Some(inner) = test.child_by_field_name("argument") {
                    self.refine(inner, !truth, state)?;
                }
            }
            "boolean_operator" => self.refine_boolean(test, truth, state)?,
            "comparison_operator" => self.refine_comparison(test, truth, state)?,
            "call" => self.refine_call(test, truth, state)?,
            "named_expression" => {
                if let Some(value) = test.child_by_field_name("value") {
                    self.refine(value, truth, state)?;
                }
            }
            "identifier" => {
                let stored = self.lookup(self.text(test), state).and_then(|value| value.test);
                if let Some(stored) = stored.filter(|stored| *stored != test) {
                    self.refine(stored, truth, state)?;
                }
            }
            _ => {}
        }
        self.budget.leave();
        Ok(())
    }

    fn refine_boolean(&mut self, test: Node<'t>, truth: bool, state: &mut State<'t>) -> Walk {
        let (Some(left), Some(right)) = (test.child_by_field_name("left"), test.child_by_field_name("right"))
        else {
            return Ok(());
        };
        let both = (self.field_text(test, "operator") == "and") == truth;
        if both {
            self.refine(left, truth, state)?;
            return self.refine(right, truth, state);
        }
        // Either the first decided, or the second did after the first had not.
        let (mut first, mut second) = (state.clone(), state.clone());
        self.refine(left, truth, &mut first)?;
        self.refine(left, !truth, &mut second)?;
        self.refine(right, truth, &mut second)?;
        state.cleared = first.cleared.meet(&second.cleared);
        Ok(())
    }

    fn refine_comparison(&mut self, test: Node<'t>, truth: bool, state: &mut State<'t>) -> Walk {
        let operands: Vec<Node<'t>> = children(test).collect();
        let mut cursor = test.walk();
        let operators: Vec<Node<'t>> = test.children_by_field_name("operators", &mut cursor).collect();
        let operators: Vec<String> =
            operator_texts(&operators.iter().map(|it| self.text(*it)).collect::<Vec<_>>());
        if operators.len() > 1 && !truth {
            return Ok(());
        }
        for (pair, operator) in operands.windows(2).zip(&operators) {
            self.refine_pair(pair[0], operator, pair[1], truth, state)?;
        }
        Ok(())
    }

    fn refine_pair(
        &mut self,
        left_node: Node<'t>,
        operator: &str,
        right_node: Node<'t>,
        truth: bool,
        state: &mut State<'t>,
    ) -> Walk {
        let (left, right) = (self.eval(left_node, state)?, self.eval(right_node, state)?);
        for side in [&left, &right] {
            let trivial = matches!(self.text(right_node), "None" | "\"\"" | "''");
            if !trivial {
                state.cleared.clear(&side.taint, Dangers::UNCHECKED);
            }
        }
        let truth = if matches!(operator, "not in" | "!=" | "is not") { !truth } else { truth };
        match operator {
            "in" | "not in" => self.membership(&left, &right, truth, state),
            "==" | "!=" if truth => self.equal(left_node, &left, right_node, &right, state)?,
            "==" | "!=" if right.literal && right.text == ".." => {
                state.cleared.clear(&left.taint, Dangers::PATH_UP);
            }
            "is" | "is not" | "==" | "!=" => {
                if matches!(self.text(right_node), "None" | "False") {
                    self.refine(left_node, !truth, state)?;
                } else if self.text(right_node) == "True" {
                    self.refine(left_node, truth, state)?;
                }
            }
            "<" | "<=" => self.ordered(left_node, &left, right_node, &right, truth, state)?,
            ">" | ">=" => self.ordered(right_node, &right, left_node, &left, truth, state)?,
            _ => {}
        }
        Ok(())
    }

    fn equal(
        &mut self,
        left_node: Node<'t>,
        left: &Value<'t>,
        right_node: Node<'t>,
        right: &Value<'t>,
        state: &mut State<'t>,
    ) -> Walk {
        if self.text(right_node) == "True" {
            return self.refine(left_node, true, state);
        }
        for (value, node, other) in [(left, left_node, right), (right, right_node, left)] {
            let path = value.path();
            if path.starts_with("len()") {
                continue;
            }
            if path.contains("commonpath") || path.contains("commonprefix") {
                state.cleared.clear(&value.taint, Dangers::PATH);
            } else if path.starts_with("hmac.") || path.starts_with("hashlib.") {
                state.cleared.clear(&value.taint, Dangers::OBJECT.with(Dangers::CODE));
            } else {
                // What the other can do no more, this one cannot either; a part says nothing of the whole.
                let part = node.kind() == "subscript"
                    || path.ends_with(".suffix")
                    || path.ends_with("splitext()")
                    || path.ends_with(".scheme");
                if !part {
                    state.cleared.clear(&value.taint, Dangers::ALL.without(state.left(other)));
                }
            }
        }
        Ok(())
    }

    fn membership(&mut self, element: &Value<'t>, whole: &Value<'t>, truth: bool, state: &mut State<'t>) {
        let harmless = whole.taint.is_empty() || state.left(whole) == Dangers::NONE;
        if !element.taint.is_empty() && harmless {
            let part = element.path().ends_with(".suffix")
                || element.path().ends_with("splitext()")
                || element.path().ends_with(".scheme")
                || element.path().ends_with("[]");
            if truth && !part {
                state.cleared.clear(&element.taint, Dangers::ALL);
            } else if !truth && whole.literal {
                // Signs that are refused one by one.
                state.cleared.clear(&element.taint, pattern::refused_signs(&whole.text));
            }
        } else if !whole.taint.is_empty() {
            if whole.path == Some("pathlib.Path()".to_owned()) && truth {
                if whole.resolved {
                    state.cleared.clear(&whole.taint, Dangers::PATH);
                }
            } else if !truth && element.literal {
                state.cleared.clear(&whole.taint, pattern::refused_part(&element.text));
            } else if truth
                && element.literal
                && pattern::is_host(&element.text)
                && state.left(whole).has(Dangers::URL)
            {
                self.report.weak_check.get_or_insert(self.line);
            }
        }
    }

    /// `less < more` came out as `truth`.
    fn ordered(
        &mut self,
        less_node: Node<'t>,
        less: &Value<'t>,
        more_node: Node<'t>,
        more: &Value<'t>,
        truth: bool,
        state: &mut State<'t>,
    ) -> Walk {
        for (node, other) in [(less_node, more_node), (more_node, less_node)] {
            // The length of text is a bound of the text.
            if let Some(measured) = self.length_of(node, state)? {
                let bounded = (node == less_node) == truth;
                state.cleared.clear(&measured.taint, Dangers::UNCHECKED);
                if bounded && self.length_of(other, state)?.is_none() {
                    state.cleared.clear(&measured.taint, Dangers::HIGH);
                }
            }
        }
        // `set(x) <= allowed`
        if truth && less.path() == "set()" && more.taint.is_empty() {
            state.cleared.clear(&less.taint, Dangers::ALL);
        }
        let (above, below) = if truth { (less, more) } else { (more, less) };
        if (below.taint.is_empty()
            || state.left(below) == Dangers::NONE
            || above.taint.is_empty()
            || self.is_bound(more_node, less_node))
            && !above.taint.is_empty()
        {
            state.cleared.clear(&above.taint, Dangers::HIGH);
        }
        if above.taint.is_empty() {
            state.cleared.clear(&below.taint, Dangers::LOW);
        }
        Ok(())
    }

    /// A field or an entry of something is a bound although the thing itself is a parameter.
    fn is_bound(&self, first: Node<'t>, second: Node<'t>) -> bool {
        [first, second].iter().any(|node| matches!(node.kind(), "attribute" | "subscript" | "call"))
    }

    fn length_of(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Option<Value<'t>>> {
        if node.kind() != "call" || self.field_text(node, "function") != "len" {
            return Ok(None);
        }
        let argument = node.child_by_field_name("arguments").and_then(|list| list.named_child(0));
        argument.map(|it| self.eval(it, state)).transpose()
    }

    fn refine_call(&mut self, call: Node<'t>, truth: bool, state: &mut State<'t>) -> Walk {
        let Some(callee) = call.child_by_field_name("function") else { return Ok(()) };
        let arguments: Vec<Node<'t>> = call
            .child_by_field_name("arguments")
            .into_iter()
            .flat_map(|list| {
                if list.kind() == "generator_expression" { vec![list] } else { children(list).collect() }
            })
            .collect();
        let path = self.eval(callee, state)?.path.unwrap_or_default();
        let method = path.rsplit('.').next().unwrap_or_default().to_owned();
        match (method.as_str(), path.as_str()) {
            ("all", "all") | ("any", "any") => {
                return self.refine_each(&arguments, method == "all", truth, state);
            }
            ("match" | "fullmatch" | "search" | "findall", _) => {
                return self.refine_match(callee, &method, &arguments, truth, state);
            }
            ("bool", "bool") => {
                return arguments.first().map_or(Ok(()), |inner| self.refine(*inner, truth, state));
            }
            ("isinstance", _) => {
                let value = self.argument(&arguments, 0, state)?;
                state.cleared.clear(&value.taint, Dangers::UNCHECKED);
                let kind = arguments.get(1).map_or("", |node| self.text(*node));
                if truth
                    && !kind.contains("str")
                    && !kind.contains("bytes")
                    && (kind.contains("int") || kind.contains("float"))
                {
                    state.cleared.clear(&value.taint, Dangers::TEXT);
                }
                return Ok(());
            }
            _ => {}
        }
        if let Some(function) = self.function_of(callee) {
            return self.refine_local(call, function, truth, state);
        }
        let receiver = match callee.child_by_field_name("object") {
            Some(object) => self.eval(object, state)?,
            None => Value::default(),
        };
        let first = self.argument(&arguments, 0, state)?;
        self.refine_method(&path, &method, &receiver, &first, truth, state);
        Ok(())
    }

    fn refine_method(
        &mut self,
        path: &str,
        method: &str,
        receiver: &Value<'t>,
        first: &Value<'t>,
        truth: bool,
        state: &mut State<'t>,
    ) {
        state.cleared.clear(&receiver.taint, Dangers::UNCHECKED);
        match method {
            "isalnum" | "isdigit" | "isidentifier" | "isdecimal" | "isnumeric" | "isalpha"
            | "isupper_alpha"
                if truth =>
            {
                let mut ruled_out = Dangers::TEXT;
                if matches!(method, "isdigit" | "isdecimal" | "isnumeric") {
                    ruled_out = ruled_out.with(Dangers::LOW);
                }
                state.cleared.clear(&receiver.taint, ruled_out);
            }
            "startswith" if truth && receiver.resolved => {
                if first.taint.is_empty()
                    || state.left(first).common(Dangers::PATH) == Dangers::NONE
                    || first.resolved
                {
                    state.cleared.clear(&receiver.taint, Dangers::PATH);
                }
            }
            "startswith" if !truth && first.text.contains('/') => {
                state.cleared.clear(&receiver.taint, Dangers::PATH_ABS);
            }
            "startswith" | "endswith" if truth && first.literal && pattern::is_host(&first.text) => {
                let whole_host = method == "endswith" && first.text.starts_with('.')
                    || method == "startswith"
                        && first.text.ends_with('/')
                        && first.text.matches('/').count() >= 3;
                if whole_host {
                    state.cleared.clear(&receiver.taint, Dangers::URL);
                } else if receiver.taint.origins().next().is_some() {
                    self.report.weak_check.get_or_insert(self.line);
                }
            }
            "startswith" | "endswith" => {}
            "is_relative_to" if truth && receiver.resolved => {
                state.cleared.clear(&receiver.taint, Dangers::PATH);
            }
            "issubset" if truth && first.taint.is_empty() => {
                state.cleared.clear(&receiver.taint, Dangers::ALL);
            }
            "isabs" | "is_absolute" if !truth => {
                state.cleared.clear(&first.taint, Dangers::PATH_ABS);
                state.cleared.clear(&receiver.taint, Dangers::PATH_ABS);
            }
            "compare_digest" if truth => {
                for value in [receiver, first] {
                    state.cleared.clear(&value.taint, Dangers::OBJECT.with(Dangers::CODE));
                }
            }
            _ if truth && self.rules.validators.is_match(method) && !path.starts_with("os.path") => {
                state.cleared.clear(&first.taint, Dangers::ALL);
                state.cleared.clear(&receiver.taint, Dangers::ALL);
            }
            _ => state.cleared.clear(&first.taint, Dangers::NONE),
        }
    }

    pub(super) fn argument(
        &mut self,
        arguments: &[Node<'t>],
        index: usize,
        state: &mut State<'t>,
    ) -> Walk<Value<'t>> {
        let node = arguments.get(index).copied();
        let node = node.map(|node| {
            node.child_by_field_name("value").filter(|_| node.kind() == "keyword_argument").unwrap_or(node)
        });
        Ok(node.map(|node| self.eval(node, state)).transpose()?.unwrap_or_default())
    }

    /// `all(test for x in xs)` that is true speaks for each, as does `any(…)` that is not.
    fn refine_each(&mut self, arguments: &[Node<'t>], all: bool, truth: bool, state: &mut State<'t>) -> Walk {
        let Some(each) = arguments.first().filter(|_| all == truth) else { return Ok(()) };
        if !matches!(each.kind(), "generator_expression" | "list_comprehension") {
            return Ok(());
        }
        // `any(sign in text for sign in SIGNS)`
        let mut inner = state.clone();
        self.comprehension_clauses(*each, &mut inner)?;
        if let Some(body) = each.child_by_field_name("body") {
            self.refine(body, truth, &mut inner)?;
        }
        state.cleared = inner.cleared;
        Ok(())
    }

    /// What a function of the file rules out where it returns something as true or as false as this.
    fn refine_local(
        &mut self,
        call: Node<'t>,
        function: Node<'t>,
        truth: bool,
        state: &mut State<'t>,
    ) -> Walk {
        let Some((returns, _)) = self.inline(call, function, state)? else { return Ok(()) };
        let mut all: Option<Cleared> = None;
        for (mut at, expression, value) in returns {
            let constant = match value.text.as_str() {
                "True" if value.literal => Some(true),
                "False" | "None" if value.literal => Some(false),
                _ => expression.is_none().then_some(false),
            };
            if constant == Some(!truth) {
                continue;
            }
            if let Some(expression) = expression.filter(|_| constant.is_none()) {
                self.refine(expression, truth, &mut at)?;
            }
            all = Some(match all {
                Some(all) => all.meet(&at.cleared),
                None => at.cleared,
            });
        }
        if let Some(all) = all {
            state.cleared = all;
        }
        Ok(())
    }
}

/// `not in` and `is not` come as two words or as one.
fn operator_texts(words: &[&str]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut i = 0;
    while i < words.len() {
        match (words[i], words.get(i + 1)) {
            ("not", Some(&"in")) => {
                texts.push("not in".to_owned());
                i += 1;
            }
            ("is", Some(&"not")) => {
                texts.push("is not".to_owned());
                i += 1;
            }
            (word, _) => texts.push(word.split_whitespace().collect::<Vec<_>>().join(" ")),
        }
        i += 1;
    }
    texts
}
