//! How an operation of this room becomes one of burn's: on the CPU it runs on slices, and leaves a node in the graph of
//! gradients where one of its inputs is trained.

use std::borrow::Cow;
use std::fmt::Debug;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Device, Tensor, TensorData};

/// A tensor on the CPU.
pub type Values = FloatTensor<Flex>;

/// Whether a tensor's operations run in this room.
pub fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.device() == Device::flex()
}

/// An operation on the CPU, of `N` tensors.
pub trait Operation<const N: usize>: Clone + Debug + Send + 'static {
    /// What its gradient needs. It is kept until then, so less is better.
    type Kept: Clone + Debug + Send + 'static;

    /// The result. `wanted` says for each input whether its gradient will be asked for.
    fn forward(&self, inputs: &[Values; N], wanted: [bool; N]) -> (Values, Self::Kept);

    /// The gradients of the inputs that are wanted, given the result's.
    fn backward(&self, kept: Self::Kept, gradient: Values, wanted: [bool; N]) -> [Option<Values>; N];
}

/// A tensor of any rank, and whether it is part of the graph of gradients.
pub enum Input {
    /// Without a gradient.
    Constant(Values),
    /// With one.
    #[cfg(feature = "autodiff")]
    Tracked(FloatTensor<graph::Traced>),
}

impl<const D: usize> From<Tensor<D>> for Input {
    fn from(tensor: Tensor<D>) -> Self {
        const HERE: &str = "a tensor on the CPU, of f32";
        #[cfg(feature = "autodiff")]
        if tensor.is_tracked() {
            return Input::Tracked(tensor.try_into_primitive::<graph::Traced>().expect(HERE));
        }
        Input::Constant(tensor.without_autodiff().try_into_primitive::<Flex>().expect(HERE))
    }
}

/// The result of an operation.
pub fn apply<const N: usize, const D: usize>(operation: impl Operation<N>, inputs: [Input; N]) -> Tensor<D> {
    #[cfg(feature = "autodiff")]
    if inputs.iter().any(|input| matches!(input, Input::Tracked(_))) {
        return graph::apply(operation, inputs);
    }
    let inputs = inputs.map(|input| match input {
        Input::Constant(values) => values,
        #[cfg(feature = "autodiff")]
        Input::Tracked(_) => unreachable!("just looked for"),
    });
    Tensor::from_primitive::<Flex>(operation.forward(&inputs, [false; N]).0)
}

#[cfg(feature = "autodiff")]
mod graph {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::{Autodiff, AutodiffBackend};

    use super::*;

    /// The CPU with a graph of gradients.
    pub type Traced = Autodiff<Flex, NoCheckpointing>;

    /// An operation's place in the graph.
    #[derive(Debug)]
    struct Node<O>(O);

    impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Node<O> {
        type State = O::Kept;

        fn backward(self, ops: Ops<O::Kept, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let gradient = gradients.consume::<Flex>(&ops.node);
            let wanted = ops.parents.each_ref().map(Option::is_some);
            let found = self.0.backward(ops.state, gradient, wanted);
            for (parent, gradient) in ops.parents.into_iter().zip(found) {
                if let (Some(parent), Some(gradient)) = (parent, gradient) {
                    gradients.register::<Flex>(parent.id, gradient);
                }
            }
        }
    }

    pub fn apply<const N: usize, const D: usize>(operation: impl Operation<N>, inputs: [Input; N]) -> Tensor<D> {
        let wanted = inputs.each_ref().map(|input| matches!(input, Input::Tracked(_)));
        let inputs = inputs.map(|input| match input {
            Input::Tracked(tensor) => tensor,
            Input::Constant(values) => Traced::from_inner(values),
        });
        let nodes = inputs.each_ref().map(|input| input.node());
        let values = inputs.map(|input| input.into_primitive());
        let (result, kept) = operation.forward(&values, wanted);
        drop(values);
        let result = match Node(operation)
            .prepare::<NoCheckpointing>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(place) => place.finish(kept, result),
            OpsKind::UnTracked(place) => place.finish(result),
        };
        Tensor::from_primitive::<Traced>(result)
    }
}

/// A tensor's values, row-major: borrowed where they lie so.
pub fn dense(values: &Values) -> Cow<'_, [f32]> {
    match values.as_slice::<f32>() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(
            values
                .to_contiguous()
                .into_data()
                .try_into_vec::<f32>()
                .unwrap_or_default(),
        ),
    }
}

/// A tensor's values, row-major, to be changed: copied only where they are held elsewhere too, or do not lie so.
pub fn owned(values: Values) -> Vec<f32> {
    values.into_data().try_into_vec::<f32>().unwrap_or_default()
}

/// A tensor's extents.
pub fn shape(values: &Values) -> Vec<usize> {
    values.layout().shape().iter().copied().collect()
}

/// A tensor from values, row-major.
pub fn tensor(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> Values {
    Values::from_data(TensorData::new(values, shape.into()))
}
